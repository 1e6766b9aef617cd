"""reload_strategy=rolling: one worker after the other, never more alive than wanted and `surge`."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.server import Server, answer, connector

APP = """
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "3"), ("X-Pid", str(os.getpid()))])
    return [b"TEXT"]
"""


def rolling(start: Callable[..., Server], directory: Path, surge: int) -> tuple[Server, str]:
    (directory / "web.py").write_text(APP.replace("TEXT", "old"))
    address = f"{directory}/s"
    options = ("--reload-strategy", "rolling", "--surge", str(surge), "--log-level", "trace")
    server = start("-w", "4", *options, "-b", f"unix:{address}", "web:application", cwd=directory)
    server.wait_log("Ready: Running")
    return server, address


@pytest.mark.parametrize("surge", [1, 2])
def test_no_more_are_alive_than_allowed(start: Callable[..., Server], short_path: Path, surge: int) -> None:
    server, address = rolling(start, short_path, surge)
    (short_path / "web.py").write_text(APP.replace("TEXT", "new"))
    with Load(connector(address), clients=4) as load:
        load.wait_answers(20)
        mark = server.mark
        server.kill(signal.SIGHUP)
        server.wait_log("Reloaded", since=mark)
        load.wait_answers(20)
    assert not load.record.failures, load.record
    assert not load.record.stale, load.record
    assert answer(address).body == b"new"
    assert 4 < most_alive(server.log) <= 4 + surge


def test_the_first_that_cannot_boot_ends_it(start: Callable[..., Server], short_path: Path) -> None:
    server, address = rolling(start, short_path, 1)
    workers = {worker.pid for worker in server.workers}
    (short_path / "web.py").write_text("import no_such_module_anywhere\n")
    server.kill(signal.SIGHUP)
    server.wait_log("Reload failed, the old workers serve on: .*no_such_module_anywhere")
    assert answer(address).body == b"old"
    assert {worker.pid for worker in server.workers} == workers


def most_alive(log: str) -> int:
    """The largest number of worker processes at a time."""
    alive: set[str] = set()
    most = 0
    for line in log.splitlines():
        if found := re.search(r"worker (\d+): slot \d+, generation \d+, booting", line):
            alive.add(found[1])
        elif found := re.search(r"worker (\d+): slot .* now gone", line):
            alive.discard(found[1])
        most = max(most, len(alive))
    return most
