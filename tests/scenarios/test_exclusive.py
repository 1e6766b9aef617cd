"""surge = 0: an application that holds an exclusive lock is reloaded and recycled while its clients wait."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.server import Server, answer, connector
from tests.support.waiting import eventually

APP = """
import fcntl, os
lock = open("lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as Zope's FileStorage: BlockingIOError where another one has it
if os.environ.get("BROKEN"):
    raise RuntimeError("the storage is of a newer version")
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2"), ("X-Pid", str(os.getpid()))])
    return [b"ok"]
"""


@pytest.fixture
def locked(short_path: Path) -> Path:
    (short_path / "web.py").write_text(APP)
    (short_path / "sdserve.conf.py").write_text("surge = 0\n")
    return short_path


def begin(start: Callable[..., Server], path: Path, *options: str) -> Server:
    return start("-b", f"unix:{path}/s", "-w", "1", *options, "web:application", cwd=path).wait_ready()


@pytest.mark.parametrize("strategy", ["all", "rolling"])
def test_a_reload_keeps_every_client(start: Callable[..., Server], locked: Path, strategy: str) -> None:
    server = begin(start, locked, "--reload-strategy", strategy)
    pids = {answer(f"{locked}/s").pid}
    with Load(connector(f"{locked}/s"), clients=8) as load:
        for _ in range(3):
            load.wait_answers(20)
            mark = server.mark
            server.kill(signal.SIGHUP)
            server.wait_log("Reloaded: Running: 1 of 1 worker serving", since=mark)
            pids.add(answer(f"{locked}/s").pid)
        load.wait_answers(20)
    assert not load.record.failures, load.record
    assert len(pids) == 4


def test_a_reload_that_fails_boots_the_old_worker_again(start: Callable[..., Server], locked: Path) -> None:
    server = begin(start, locked)
    with Load(connector(f"{locked}/s"), clients=4) as load:
        load.wait_answers(20)
        (locked / "sdserve.conf.py").write_text("surge = 0\nraw_env = ['BROKEN=1']\n")
        server.kill(signal.SIGHUP)
        server.wait_log("Reload failed.*the storage is of a newer version")
        load.wait_answers(20)
    assert not load.record.failures, load.record
    eventually(lambda: "Running: 1 of 1 worker serving" in server.status(), "it serves again")


def test_a_worn_worker_leaves_before_its_replacement_boots(start: Callable[..., Server], locked: Path) -> None:
    server = begin(start, locked, "--max-requests", "30")
    with Load(connector(f"{locked}/s"), clients=4, think=0.002) as load:
        eventually(lambda: len({a.pid for a in load.record.answers}) >= 4, "four workers have answered")
    assert not load.record.failures, load.record
    assert "failed to" not in server.log, server.log
