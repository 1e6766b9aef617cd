"""A worker's life as a process, from fork to exit code, forked as the master forks it.

Each case runs in an interpreter of its own: a forked child ends like a program, with its atexit functions and threads,
and those must not be pytest's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PARENT = '''
import json, os, select, signal, sys, threading, time
from sdserve.arbiter.spawn import fork_worker
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.config import load as configuration
from sdserve.log import Logger
from sdserve.process.scoreboard import Scoreboard
from sdserve.workers.application import Application
from sdserve.workers.base import Worker
from sdserve.workers.words import READY


class Sample(Worker):
    """Serves nothing, and tells of itself by its exit code and its channel."""

    def run(self):
        poll = select.poll()
        for fd in self.control_fds():
            poll.register(fd, select.POLLIN)
        while self.alive:
            for fd, _ in poll.poll():
                self.handle_control(fd)


def say(worker, **fields):
    worker.tell(json.dumps(fields).encode())


exec(sys.argv[1], case := {**globals()})
cfg = configuration(["app:app", *case.get("argv", [])], {})
made = case.get("worker_class", Sample)(1, os.getpid(), [], Application("app:app"), cfg.timeout, cfg, Logger())
made.slot, made.generation = case.get("slot", 0), 1
made.app.wsgi = case.get("load", lambda: None)
process, channel = fork_worker(made, None, Scoreboard(4), lambda: None)
handle = WorkerHandle(made, process, channel, made.cell, time.monotonic)
said = []
while True:
    select.select([handle.channel], [], [])
    message = handle.channel.recv(65536)
    if not message:
        break
    said.append(message.decode())
    if message == case.get("upon", READY):
        for signum in case.get("signals", [signal.SIGTERM]):
            handle.send(signum)
        if "meanwhile" in case:
            case["meanwhile"](handle)
_, status = os.waitpid(handle.pid, 0)
json.dump({"code": os.waitstatus_to_exitcode(status), "said": said}, sys.stdout)
'''


def life(case: str, cwd: Path) -> tuple[int, list[str], str]:
    """The exit code (negative: the signal), what the worker said to its master, and the log."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT, case],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found["code"], found["said"], done.stderr


def with_config(body: str) -> str:
    """The case of a configuration file."""
    return f"open('conf.py', 'w').write({body!r})\nargv = ['-c', 'conf.py']\n"


def test_an_orderly_life(tmp_path: Path) -> None:
    assert life("", tmp_path)[:2] == (0, ["ready", "retiring"])


def test_hooks_in_their_order(tmp_path: Path) -> None:
    names = {"post_fork": "server, worker", "post_worker_init": "worker", "worker_exit": "server, worker"}
    hooks = "".join(f"def {name}({args}):\n    worker.tell(b'{name}')\n" for name, args in names.items())
    code, said, _ = life(with_config(hooks), tmp_path)
    assert (code, said) == (0, ["post_fork", "post_worker_init", "ready", "retiring", "worker_exit"])


@pytest.mark.parametrize("signum", ["SIGHUP", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH"])
def test_what_is_meant_for_masters_is_ignored(tmp_path: Path, signum: str) -> None:
    code, said, _ = life(f"signals = [signal.{signum}, signal.SIGTERM]", tmp_path)
    assert (code, said) == (0, ["ready", "retiring"])


@pytest.mark.parametrize("signum", ["SIGINT", "SIGQUIT"])
def test_a_quick_end_and_its_hook(tmp_path: Path, signum: str) -> None:
    hook = with_config("def worker_int(worker):\n    worker.tell(b'worker_int')\n")
    code, said, _ = life(hook + f"signals = [signal.{signum}]", tmp_path)
    assert (code, said) == (0, ["ready", "worker_int"])


def test_an_abort_shows_where_it_hung(tmp_path: Path) -> None:
    hook = with_config("def worker_abort(worker):\n    worker.tell(b'worker_abort')\n")
    case = """
signals = [signal.SIGABRT]
upon = b"busy"
class worker_class(Sample):
    def run(self):
        self.tell(b"busy")
        self.hangs()
    def hangs(self):
        signal.pause()
"""
    code, said, log = life(hook + case, tmp_path)
    assert (code, said) == (1, ["ready", "busy", "worker_abort"])
    assert "Fatal Python error" not in log
    assert "most recent call first" in log
    assert "in run" in log


def test_the_end_of_the_master_is_the_end_of_its_workers(tmp_path: Path) -> None:
    case = "signals = []\ndef meanwhile(handle):\n    import socket\n    handle.channel.shutdown(socket.SHUT_RDWR)\n"
    code, _, log = life(case, tmp_path)
    assert code == 0
    assert "The master is gone" in log


def test_an_application_that_cannot_be_loaded(tmp_path: Path) -> None:
    case = "from sdserve.errors import AppImportError\ndef load():\n    raise AppImportError('no module named shop')\n"
    assert life(case, tmp_path)[:2] == (4, ["failed:no module named shop"])


def test_a_hook_that_raises_at_boot(tmp_path: Path) -> None:
    case = with_config("def post_fork(server, worker):\n    raise ValueError('no database')\n")
    code, said, log = life(case, tmp_path)
    assert (code, said) == (3, ["failed:the hook post_fork raised ValueError: no database"])
    assert "Traceback" in log


@pytest.mark.parametrize(
    ("argument", "reason"), [("0", "code 0"), ("7", "code 7"), ("'go away'", "code 1 (go away)"), ("None", "code 0")]
)
def test_an_application_that_exits_at_its_import(tmp_path: Path, argument: str, reason: str) -> None:
    code, said, _ = life(f"def load():\n    sys.exit({argument})\n", tmp_path)
    assert (code, said) == (3, [f"failed:it exited with {reason} before it served"])


def test_term_in_the_middle_of_a_long_import(tmp_path: Path) -> None:
    case = "def load():\n    os.kill(os.getpid(), signal.SIGTERM)\n    threading.Event().wait()\n"
    assert life(case, tmp_path)[:2] == (0, ["retiring", "failed:it was told to leave by SIGTERM"])


@pytest.mark.parametrize(("again", "told"), [("SIGTERM", ["retiring", "goodbye"]), ("SIGQUIT", ["retiring"])])
def test_only_a_quick_end_cuts_the_way_out_of_a_boot(tmp_path: Path, again: str, told: list[str]) -> None:
    """As of a second TERM: the first went to all processes of the unit, so the master has sent one as well."""
    hook = f"def worker_exit(server, worker):\n    os.kill(os.getpid(), signal.{again})\n    worker.tell(b'goodbye')\n"
    case = "def load():\n    os.kill(os.getpid(), signal.SIGTERM)\n    threading.Event().wait()\n"
    first, *later = told
    said = [first, "failed:it was told to leave by SIGTERM", *later]
    assert life(with_config("import os, signal\n" + hook) + case, tmp_path)[:2] == (0, said)


def test_one_that_breaks_while_it_serves(tmp_path: Path) -> None:
    case = "signals = []\nclass worker_class(Sample):\n    def run(self):\n        raise OSError('out of luck')\n"
    code, said, log = life(case, tmp_path)
    assert (code, said) == (1, ["ready"])
    assert "out of luck" in log


def test_a_worker_exit_hook_that_raises_changes_nothing(tmp_path: Path) -> None:
    case = with_config("def worker_exit(server, worker):\n    raise ValueError('oops')\n")
    code, said, log = life(case, tmp_path)
    assert (code, said) == (0, ["ready", "retiring"])
    assert "Exception in the worker_exit hook" in log


def test_the_applications_own_end_is_heard(tmp_path: Path) -> None:
    case = (
        "import atexit\n"
        "def load():\n"
        "    atexit.register(print, 'atexit ran', file=sys.stderr)\n"
        "    threading.Thread(target=lambda: threading.main_thread().join() or print('thread ended', file=sys.stderr))"
        ".start()\n"
    )
    code, _, log = life(case, tmp_path)
    assert code == 0
    assert log.index("thread ended") < log.index("atexit ran")


ENDLESS = {
    "a thread": "threading.Thread(target=threading.Event().wait, name='letters').start()",
    "a thread of a pool": "pool.submit(threading.Event().wait)",
    "a function at exit": "import atexit; atexit.register(lambda: signal.pause())",
    "a function at exit in C": "import atexit; atexit.register(time.sleep, 60)",
}
POOL = "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1, 'letters')\n"


@pytest.mark.parametrize("endless", ENDLESS)
@pytest.mark.parametrize(
    "run", ["", "signals = []\nclass worker_class(Sample):\n    def run(self):\n        sys.exit(3)\n"]
)
def test_what_the_application_does_not_end_is_named_and_left_behind(tmp_path: Path, endless: str, run: str) -> None:
    """Whoever told the worker to go, and who did not: it is not there for ever."""
    case = f"argv = ['--graceful-timeout', '1']\n{POOL}{run}def load():\n    {ENDLESS[endless]}\n"
    code, _, log = life(case, tmp_path)
    assert code == (3 if run else 0)
    what = {"thread": "thread letters", "at exit": "load.<locals>.<lambda> (<string>:"}
    [named] = [name for kind, name in {**what, "in C": "a function of atexit"}.items() if kind in endless][-1:]
    assert f"leaves behind what the application did not end: {named}" in log
    assert "Traceback" not in log


def test_a_thread_that_ends_in_time_is_waited_for(tmp_path: Path) -> None:
    """As long as the worker may take to leave."""
    case = """
done = threading.Event()
def load():
    threading.Thread(target=lambda: done.wait() and print("sent", file=sys.stderr)).start()
    threading.Thread(target=lambda: threading.main_thread().join() or time.sleep(1) or done.set()).start()
"""
    code, _, log = life(case, tmp_path)
    assert code == 0
    assert "sent" in log


TELL = """
signals = []
class worker_class(Sample):
    def run(self):
        say(self, uid=os.getuid(), gid=os.getgid(), groups=os.getgroups(), umask=os.umask(0),
            gpu=os.environ.get("CUDA_VISIBLE_DEVICES"), title=open("/proc/self/cmdline").read().strip("\\0"))
"""


def told(case: str, cwd: Path) -> dict[str, Any]:
    code, said, log = life(TELL + case, cwd)
    assert code == 0, log
    found: dict[str, Any] = json.loads(said[1])
    return found


def test_it_stays_who_the_master_is_unless_told_otherwise(tmp_path: Path) -> None:
    found = told("os.umask(0o027)", tmp_path)
    assert (found["uid"], found["gid"], found["umask"], found["gpu"]) == (os.getuid(), os.getgid(), 0o027, None)
    assert found["title"].startswith("sdserve: worker [app:app]")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_user_group_and_umask(tmp_path: Path) -> None:
    found = told("argv = ['-u', '65534', '-g', '65533', '-m', '077']", tmp_path)
    assert (found["uid"], found["gid"], found["groups"], found["umask"]) == (65534, 65533, [65533], 0o077)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_a_hook_that_becomes_somebody_has_the_last_word(tmp_path: Path) -> None:
    """Who is not named by the configuration is not restored."""
    found = told(
        with_config("import os\ndef post_fork(server, worker):\n    os.setgid(65533)\n    os.setuid(65534)\n"), tmp_path
    )
    assert (found["uid"], found["gid"]) == (65534, 65533)


@pytest.mark.parametrize(("slot", "gpu"), [(0, "4"), (1, "7"), (2, "4"), (5, "7")])
def test_the_gpu_of_its_slot(tmp_path: Path, slot: int, gpu: str) -> None:
    assert told(f"slot = {slot}\nargv = ['--gpus', '4,7']", tmp_path)["gpu"] == gpu
