"""sdserve as PID 1 of a container: it reaps everybody's orphans, refuses an upgrade, and ends as it is told."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import Process
from tests.support.server import Server, answer
from tests.support.waiting import eventually

CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
APP = """
import os
def application(environ, start_response):
    if environ["PATH_INFO"] == "/orphan" and os.fork() == 0:
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "0.2"])
        os._exit(0)
    start_response("200 OK", [("Content-Length", "2"), ("X-Pid", str(os.getpid()))])
    return [b"ok"]
"""


@pytest.fixture
def program() -> tuple[str, ...]:
    tried = subprocess.run([*CONTAINER, "true"], capture_output=True, check=False, text=True)
    if tried.returncode:
        pytest.skip(f"no namespace of processes can be made here: {tried.stderr.strip()}")
    return (*CONTAINER, sys.executable, "-m", "sdserve")


@pytest.fixture
def container(start: Callable[..., Server], short_path: Path, program: tuple[str, ...]) -> tuple[Server, Process, str]:
    """The server, its master, and where it listens."""
    (short_path / "web.py").write_text(APP)
    address = f"{short_path}/s"
    server = start("-b", f"unix:{address}", "-w", "2", "web:application", cwd=short_path, program=program)
    server.wait_ready()
    [master] = server.workers
    assert master.inner == 1
    return server, master, address


def test_an_upgrade_is_refused_and_term_ends_it(container: tuple[Server, Process, str]) -> None:
    server, master, address = container
    os.kill(master.pid, signal.SIGUSR2)
    server.wait_log("USR2 signal ignored.*PID 1 of a container")
    assert answer(address).status == 200
    os.kill(master.pid, signal.SIGTERM)
    assert server.wait() == 0
    assert "Shutting down: Master" in server.log


def test_orphans_are_reaped(container: tuple[Server, Process, str]) -> None:
    _, master, address = container
    assert answer(address, "/orphan").status == 200
    eventually(lambda: len(master.children) == 3, "an orphan of two workers' master")
    eventually(lambda: len(master.children) == 2, "it is reaped, zombie or not")
    assert answer(address).status == 200


def test_a_configuration_that_hangs_ends_when_it_is_told(
    start: Callable[..., Server], short_path: Path, program: tuple[str, ...]
) -> None:
    """The kernel ends no PID 1 by a signal that it does not handle."""
    (short_path / "conf.py").write_text("import time\nprint('it hangs', flush=True); time.sleep(600)\n")
    server = start("-c", "conf.py", "web:application", cwd=short_path, program=program)
    server.wait_log("it hangs")
    [master] = server.workers
    os.kill(master.pid, signal.SIGTERM)
    assert server.wait() == 128 + signal.SIGTERM
    assert f"it was at {short_path}/conf.py, line 2" in server.log
