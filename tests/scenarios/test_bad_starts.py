"""A first start that cannot succeed ends, with gunicorn's exit codes and one line that says why."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdserve.errors import NoRoomError
from tests.support.server import Server
from tests.support.unprivileged import unprivileged

GOOD = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
POST_FORK = "def post_fork(server, worker):\n    raise RuntimeError('no licence today')\n"
SUICIDE = "import os\n\ndef post_fork(server, worker):\n    os._exit(7)\n"
CASES = {
    "syntax error": ("def application(:\n", "app:application", "", 3, "app.py"),
    "missing module": (GOOD, "absent:application", "", 3, "absent"),
    "missing requirement": ("import requirement_x\n" + GOOD, "app", "", 3, "requirement_x"),
    "wrong callable": (GOOD, "app:aplication", "", 4, "aplication"),
    "not callable": ("application = 5\n", "app", "", 4, "application"),
    "failing factory": ("def make():\n    raise RuntimeError('no key')\n", "app:make()", "", 3, "no key"),
    "death in post_fork": (GOOD, "app", POST_FORK, 3, "post_fork raised RuntimeError: no licence today"),
    "exit in post_fork": (GOOD, "app", SUICIDE, 3, "7"),
    "unknown setting": (GOOD, "app", "wokers = 3\n", 1, "wokers"),
    "several bad settings": (GOOD, "app", "workers = -1\ntimeout = 'long'\n", 1, "timeout"),
}

RAISES = ("syntax error", "missing requirement", "failing factory")  # in the application's own lines


@pytest.mark.parametrize("preload", [False, True], ids=["", "preloaded"])
@pytest.mark.parametrize("case", CASES)
def test_exit_code_and_reason(start: Callable[..., Server], short_path: Path, case: str, preload: bool) -> None:
    source, app, config, code, word = CASES[case]
    (short_path / "app.py").write_text(source)
    (short_path / "conf.py").write_text(config)
    arguments = ["-c", "conf.py", "-b", f"unix:{short_path}/s", "-w", "3", *(["--preload"] if preload else []), app]
    server = start(*arguments, cwd=short_path)

    assert server.wait() == code
    assert word in server.log
    assert not any("READY=1" in message for message in server.notify.messages)
    if code != 1:
        told = server.notify.wait(lambda m: word in m.fields.get("STATUS", ""))
        assert "ERRNO" not in told  # no system call failed
    if case in RAISES:
        trace = server.log.partition("[ERROR] Exception while loading the application\n")[2].partition("\n[")[0]
        assert f'File "{short_path}/app.py", line' in trace
        assert "/sdserve/" not in trace and "importlib" not in trace
    assert not (short_path / "s").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who is not")
def test_who_is_not_root_cannot_become_somebody_else(start: Callable[..., Server], short_path: Path) -> None:
    """One line, and no traceback, which would say no more."""
    (short_path / "app.py").write_text(GOOD)
    program = unprivileged(short_path)
    short_path.chmod(0o777)
    server = start("-u", "root", "-b", f"unix:{short_path}/s", "app", cwd=short_path, program=program)
    assert server.wait() == 3
    assert (
        "cannot become user 0: only root may (Operation not permitted); leave the setting user out" in server.status()
    )
    assert "Traceback" not in server.log


def test_a_limit_of_descriptors_that_is_too_low_is_named(start: Callable[..., Server], short_path: Path) -> None:
    """In one line, wherever the start meets it; systemd hears of it, too."""
    for most in range(6, 40, 2):
        few = ("sh", "-c", f'ulimit -n {most}; exec "$0" -m sdserve "$@"', sys.executable)
        server = start("-b", f"unix:{short_path}/s", "plain:application", program=few)
        server.wait_log("^.*(Ready: |Too many open files)")
        if "Ready: " in server.log:
            break
        assert server.wait() == NoRoomError.exit_code, server.log
        assert "Traceback" not in server.log
        heard = (
            server.status() if "Starting sdserve" in server.log else server.log.rstrip()
        )  # before, no socket is left
        assert heard.endswith("Too many open files; see LimitNOFILE="), server.log
    else:
        pytest.fail("it never served")


HANGS = """
import time
while True:
    try:
        print("it hangs", flush=True); time.sleep(60)
    except BaseException:
        continue
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_the_configuration_hangs_is_told_when_its_start_is_ended(
    start: Callable[..., Server], short_path: Path, number: signal.Signals
) -> None:
    """As systemd does when the time for the start is over."""
    (short_path / "conf.py").write_text(HANGS)
    program = ("env", f"--default-signal={number.name[3:]}", *Server.PROGRAM)  # a shell's background has no SIGINT
    server = start("-c", "conf.py", "plain:application", cwd=short_path, program=program)
    server.wait_log("it hangs")
    server.kill(number)
    assert server.wait() == -number
    where = f"{number.name} while the configuration was loaded: it was at {short_path}/conf.py, line 5"
    assert server.log.endswith(f"sdserve: error: {where}\n")
    assert server.status() == where
