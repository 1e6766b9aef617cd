"""Forking twice is bounded: what hangs in between ends, and the master goes on."""

import subprocess
import sys

import pytest

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


def test_the_second_is_told() -> None:
    script = (
        "import os\nfrom sdserve.arbiter import reexec\nprint(reexec.fork_twice(lambda: os._exit(0)).pid > os.getpid())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "True\n", done.stderr


SHORT = """
import errno, os, sys
from sdserve.arbiter import reexec
calls = iter(range(9))
def refused(*args):
    if (os.getpid() == MASTER) == (sys.argv[3] == "master") and next(calls) == int(sys.argv[2]):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    return real(*args)
MASTER, real = os.getpid(), getattr(os, sys.argv[1])
setattr(os, sys.argv[1], refused)
def child():
    os.write(1, b"the child runs\\n")
    os._exit(0)
before = os.listdir("/proc/self/fd")
try:
    reexec.fork_twice(child)
except OSError as error:
    print(error.strerror)
print(len(os.listdir("/proc/self/fd")) - len(before))
try:
    print(os.wait())
except ChildProcessError:
    print("no child")
"""


@pytest.mark.parametrize(
    ("call", "at", "who", "told"),
    [
        ("fork", 0, "master", "Cannot allocate memory"),
        ("pidfd_open", 0, "master", "Cannot allocate memory"),
        ("pidfd_open", 1, "master", "Cannot allocate memory"),
        ("fork", 0, "its child", "Resource temporarily unavailable"),
    ],
)
def test_without_room_nothing_is_left_and_nobody_runs(call: str, at: int, who: str, told: str) -> None:
    """Whoever is forked already ends: the output ends with the last process that holds it."""
    script = [sys.executable, "-c", SHORT, call, str(at), who]
    done = subprocess.run(script, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == f"{told}\n0\nno child\n", done.stderr
