"""Worn workers are replaced: the replacement serves first, one at a time, and no request is lost."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sdserve.workers.http.loop import EVENTS
from tests.support.load import Load
from tests.support.server import Server, connector
from tests.support.waiting import eventually

APP = """
import os
kept = []
def application(environ, start_response):
    if not kept:
        kept.append(b"x" * KEPT)
    start_response("200 OK", [("Content-Length", "2"), ("X-Pid", str(os.getpid()))])
    return [b"ok"]
"""


@pytest.mark.parametrize(
    "limit",
    [
        ("--max-requests", "50", "--max-requests-jitter", "20"),
        ("--max-memory", str(60 << 20)),
        ("--max-age", "1"),
    ],
    ids=["requests", "memory", "age"],
)
def test_replaced_before_it_retires(start: Callable[..., Server], short_path: Path, limit: tuple[str, ...]) -> None:
    # In one piece: a worker that is above the limit only with what it shares is not looked at again for ten seconds.
    kept = 64 << 20 if limit[0] == "--max-memory" else 1
    (short_path / "web.py").write_text(APP.replace("KEPT", str(kept)))
    address = f"{short_path}/s"
    server = start(
        "-w", "2", "--log-level", "trace", "-b", f"unix:{address}", *limit, "web:application", cwd=short_path
    )
    server.wait_log("Ready: Running")
    first = {worker.pid for worker in server.workers}
    with Load(connector(address), clients=4, think=0.002) as load:
        eventually(lambda: len({a.pid for a in load.record.answers}) >= 5, "five workers have answered")
        eventually(lambda: not first & {worker.pid for worker in server.workers}, "the first workers are gone")
    assert not load.record.failures, load.record
    assert not load.record.stale, load.record
    alive = retiring_at_once(server.log)
    assert max(alive) <= 3, "a worker and its replacement, and nobody else at the same time"


def retiring_at_once(log: str) -> list[int]:
    """How many workers served or booted after each event of the log."""
    alive: set[str] = set()
    counts = []
    for line in log.splitlines():
        if found := re.search(r"worker (\d+): slot \d+, generation \d+, booting", line):
            alive.add(found[1])
        elif found := re.search(r"worker (\d+): slot .* now (retiring|gone)", line):
            alive.discard(found[1])
        counts.append(len(alive))
    return counts


def test_a_worker_that_never_rests_asks_in_time(start: Callable[..., Server], short_path: Path) -> None:
    """Its client always has another request for it; what it has answered is counted all the same."""
    (short_path / "web.py").write_text(APP.replace("KEPT", "1"))
    server = start("-b", f"unix:{short_path}/s", "--max-requests", "50", "web:application", cwd=short_path).wait_ready()
    with connector(f"{short_path}/s")() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        asked = int(server.wait_log(r"answered (\d+) requests and asks for its replacement")[1])
    assert 50 <= asked <= 50 + EVENTS + 16
