"""Applications that handle SIGTERM themselves, as in a container: their requests are finished first."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import ask
from tests.support.server import Server, connector, free_port
from tests.support.waiting import eventually

HANDLERS = {
    "exits": "lambda *args: (note(), sys.exit(0))",
    "notes": "lambda *args: note()",
    "raises": "lambda *args: (note(), 1 / 0)",
    "chained": "lambda *args: (note(), before(*args))",
    "kills": "signal.SIG_DFL",
    "nothing": "signal.SIG_IGN",
}
WSGI = """
import os, signal, sys, time

def note():
    with open("notes", "a") as file:
        file.write(f"{os.path.exists('go on')} ")

before = signal.getsignal(signal.SIGTERM)
signal.signal(signal.SIGTERM, HANDLER)

def application(environ, start_response):
    while environ["PATH_INFO"] == "/slow" and not os.path.exists("go on"):
        open("begun", "w").close()
        time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
ASGI = (
    WSGI.partition("def application")[0]
    + """
import asyncio

async def application(scope, receive, send):
    while scope.get("path") == "/slow" and not os.path.exists("go on"):
        open("begun", "w").close()
        await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
)
KINDS = {
    "wsgi": (WSGI, ("--threads", "1")),
    "threads": (WSGI, ("--threads", "4")),
    "asgi": (ASGI, ("--asgi-lifespan", "off")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("handler", HANDLERS)
def test_a_reload_costs_no_request(start: Callable[..., Server], tmp_path: Path, handler: str, kind: str) -> None:
    app, options = KINDS[kind]
    (tmp_path / "app.py").write_text(app.replace("HANDLER", HANDLERS[handler]))
    address = ("127.0.0.1", free_port())
    server = start("-b", "{}:{}".format(*address), "-w", "1", *options, "app", cwd=tmp_path).wait_ready()
    [worker] = server.workers
    with connector(address)() as slow:
        slow.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually((tmp_path / "begun").exists, "a request in the worker that leaves")
        server.kill(signal.SIGHUP)
        server.wait_log("Reloaded: ")
        with connector(address)() as quick:
            assert ask(quick, "/").status == 200
        (tmp_path / "go on").touch()
        assert slow.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    worker.wait_gone(20)
    assert "was killed" not in server.log and "Worker failed" not in server.log
    notes = (tmp_path / "notes").read_text().split() if (tmp_path / "notes").exists() else []
    assert notes == (["True"] if "note" in HANDLERS[handler] else [])
    assert ("ZeroDivisionError" in server.log) is (handler == "raises")


PRELOADED = """
import signal
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
    signal.signal(number, {})
signal.set_wakeup_fd(-1)

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.parametrize("when", ["start", "reload"])
@pytest.mark.parametrize("handler", ["lambda *args: print('mine', flush=True)", "signal.SIG_DFL", "signal.SIG_IGN"])
def test_a_master_keeps_its_own(start: Callable[..., Server], tmp_path: Path, handler: str, when: str) -> None:
    (tmp_path / "app.py").write_text(PRELOADED.format(handler))
    (tmp_path / "other.py").write_text(PRELOADED.replace("{}", "signal.getsignal(number)"))
    conf = tmp_path / "conf.py"
    conf.write_text("preload_app, wsgi_app = " + {"start": "True, 'app'", "reload": "False, 'other'"}[when])
    address = ("127.0.0.1", free_port())
    server = start("-b", "{}:{}".format(*address), "-w", "1", "-c", "conf.py", cwd=tmp_path).wait_ready()
    conf.write_text("preload_app, wsgi_app = True, 'app'")
    for _ in range(2):
        mark = server.mark
        server.kill(signal.SIGHUP)
        server.wait_log("Reloaded: ", since=mark)
    [worker] = server.wait_workers(1)
    worker.kill(signal.SIGKILL)
    server.wait_workers(1, besides=[worker.pid])
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert "mine" not in server.log


RAISES = """
import signal

class Mine(Exception):
    pass

def raises(*args):
    raise Mine("again")

signal.signal(signal.SIGVTALRM, raises)

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def test_one_that_raises_when_it_has_raised_before_leaves_the_master(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    """Before its next turn the master pauses: that is no time at which it can be ended, either."""
    (tmp_path / "app.py").write_text(RAISES)
    address = ("127.0.0.1", free_port())
    server = start("-b", "{}:{}".format(*address), "-w", "1", "--preload", "app", cwd=tmp_path).wait_ready()
    for _ in range(3):
        mark = server.mark
        server.kill(signal.SIGVTALRM)
        server.wait_log("Mine: again", since=mark)
    mark = server.mark
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ", since=mark)
    with connector(address)() as client:
        assert ask(client, "/").status == 200
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
