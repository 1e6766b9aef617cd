"""Counters never go back, and say what clients saw: over a reload, a worker that was killed, an upgrade."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sdserve.process.counters import ACCEPTED, BYTES, CAUSES, EXITS, OUTCOMES, RELOADS, UPGRADES, Totals
from tests.support.counted import totals
from tests.support.load import Load
from tests.support.server import Server, connector, free_port
from tests.support.waiting import eventually
from tests.support.wire import Wire, exchange, get

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


LONG = """
def application(environ, start_response):
    start_response("200 OK", [])
    whole = b"x" * 50_000_000
    return [whole] if environ["PATH_INFO"] == "/whole" else (whole[:20_000] for _ in range(2500))
async def spoken(scope, receive, send):
    whole = b"x" * 50_000_000
    await send({"type": "http.response.start", "status": 200})
    if scope["path"] == "/whole":
        await send({"type": "http.response.body", "body": whole})
    while scope["path"] == "/pieces":
        await send({"type": "http.response.body", "body": whole[:20_000], "more_body": True})
"""
KINDS = {"sync": ["web:application"], "threads": ["--threads", "4", "web:application"], "asgi": ["web:spoken"]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/whole", "/pieces"])
def test_bytes_of_answers_that_a_client_breaks_off(
    start: Callable[..., Server], short_path: Path, kind: str, path: str
) -> None:
    (short_path / "web.py").write_text(LONG)
    address = f"{short_path}/s"
    log = ("--access-logfile", "-", "--access-logformat", "sent %(B)s bytes")
    options = ("--asgi-lifespan", "off", *log)
    server = start("-b", f"unix:{address}", *options, *KINDS[kind], cwd=short_path).wait_ready()
    with connector(address)() as sock, sock.makefile("rb") as answer:
        sock.sendall(get(path))
        assert len(answer.read(1_000_000)) == 1_000_000
    sent = int(server.wait_log(r"sent (\d+) bytes")[1])
    assert 900_000 < sent < 50_000_000
    eventually(lambda: totals(server.pid).words[BYTES] == sent, "they are counted")


@pytest.mark.parametrize("kind", [["plain:application"], ["--threads", "4", "plain:application"], ["plain_asgi"]])
def test_an_upload_that_its_client_gives_up_is_a_request_without_an_answer(
    start: Callable[..., Server], short_path: Path, kind: list[str]
) -> None:
    port = free_port()
    log = ("--access-logfile", "-", "--access-logformat", "%(r)s ended %(s)s %(B)s")
    server = start("-b", f"127.0.0.1:{port}", *log, *kind).wait_ready()
    upload = get("/echo", "Content-Length: 1000000", method="POST")
    for sent in (b"", b"x" * 1000, b"x" * 400_000):
        for leave in (Wire.close, Wire.reset):
            before, mark = totals(server.pid), server.mark
            wire = Wire(("127.0.0.1", port), upload + sent)
            eventually(lambda: totals(server.pid).words[ACCEPTED] > before.words[ACCEPTED], "it is in")  # noqa: B023
            leave(wire)
            server.wait_log("^POST /echo HTTP/1.1 ended  0$", since=mark)
            gone = before.answers["gone"].count + 1
            eventually(lambda: totals(server.pid).answers["gone"].count == gone, "it is counted")  # noqa: B023
    with Wire(("127.0.0.1", port), upload[:20]) as wire:
        pass
    assert exchange(("127.0.0.1", port), get("/")).status == 200
    assert totals(server.pid).answers["gone"].count == 6, "half a head is no request"
