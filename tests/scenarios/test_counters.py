"""Counters never go back, and say what clients saw: over a reload, a worker that was killed, an upgrade."""

import signal
from collections.abc import Callable
from pathlib import Path

from sdserve.process.counters import ACCEPTED, BYTES, CAUSES, EXITS, OUTCOMES, RELOADS, UPGRADES, Totals
from tests.support.counted import totals
from tests.support.load import Load
from tests.support.server import Server, connector
from tests.support.waiting import eventually
from tests.support.wire import exchange, get

APP = """
import os
ANSWERS = {"/gone": "404 Not Found", "/broken": "500 Internal Server Error"}
def application(environ, start_response):
    status = ANSWERS.get(environ["PATH_INFO"], "200 OK")
    start_response(status, [("Content-Length", "2"), ("X-Pid", str(os.getpid()))])
    return [b"ok"]
"""


def never_back(before: Totals, after: Totals) -> Totals:
    """What was counted last."""
    assert all(then <= now for then, now in zip(before.words, after.words, strict=True))
    return after


def test_totals_are_what_clients_saw(start: Callable[..., Server], short_path: Path) -> None:
    (short_path / "web.py").write_text(APP)
    address = f"{short_path}/s"
    server = start("-w", "2", "-b", f"unix:{address}", "--upgrade", "auto", "web:application", cwd=short_path)
    server.wait_log("Ready: Running")
    seen = totals(server.pid)
    with Load(connector(address), clients=3, think=0.002) as load:
        load.wait_answers(30)
        seen = never_back(seen, totals(server.pid))
        server.kill(signal.SIGHUP)
        server.wait_log("Reloaded: ")
        load.wait_answers(30)
        seen = never_back(seen, totals(server.pid))
    for target in ("/gone", "/gone", "/broken"):
        exchange(address, get(target))
    exchange(address, b"what is this\r\n\r\n")
    eventually(lambda: totals(server.pid).answers["4xx"].count == 3, "refusals are counted")
    server.workers[0].kill()
    eventually(lambda: totals(server.pid).by_name(EXITS, CAUSES)["killed"] == 1, "the end of a worker is counted")
    pid = server.pid
    server.kill(signal.SIGUSR2)
    server.wait_log("Handing over to the new master")
    server.wait_log("Master has been promoted.")
    new = int(server.log.rpartition("Upgrade: the new master is pid ")[2].split()[0])
    assert new != pid
    exchange(address, get("/"))

    def all_counted() -> bool:
        nonlocal seen
        seen = never_back(seen, totals(new))
        return seen.answers["2xx"].count == len(load.record.answers) + 1

    eventually(all_counted, "every answer is counted")
    assert not load.record.failures
    counts = {name: row.count for name, row in seen.answers.items()}
    assert counts == {"1xx": 0, "2xx": len(load.record.answers) + 1, "3xx": 0, "4xx": 3, "5xx": 1, "gone": 0}
    assert seen.words[BYTES] == 2 * (counts["2xx"] + 3)
    assert seen.words[ACCEPTED] >= 3 + 5
    assert seen.by_name(RELOADS, OUTCOMES) == {"succeeded": 1, "failed": 0}
    assert seen.by_name(UPGRADES, OUTCOMES) == {"succeeded": 1, "failed": 0}
    assert seen.by_name(EXITS, CAUSES)["told"] >= 2
