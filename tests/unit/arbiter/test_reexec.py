"""Forking twice is bounded: what hangs in between ends, and the master goes on."""

import subprocess
import sys

HANGS = """
import os, threading
from sdserve.arbiter import reexec
reexec.FORK_LIMIT = 0.1
hung = []
def hang():
    hung.append(1)
    if len(hung) == 1 and os.getpid() != MASTER:
        threading.Event().wait()
MASTER = os.getpid()
os.register_at_fork(after_in_child=hang)
try:
    reexec.fork_twice(lambda: os._exit(0))
except TimeoutError as error:
    print(error.strerror)
"""


def test_a_middle_process_that_hangs_is_killed() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines()[:1] == ["a forked process hung for 0.1 seconds"], done.stderr


def test_the_pid_of_the_second_is_told() -> None:
    script = (
        "import os\nfrom sdserve.arbiter import reexec\nprint(reexec.fork_twice(lambda: os._exit(0)) > os.getpid())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "True\n", done.stderr
