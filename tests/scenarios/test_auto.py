"""What serves an application, it decides itself: the log says so once, and hooks see the class that it came to be."""

import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server, answer, connector

Start = Callable[..., Server]

WSGI = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"wsgi"]
"""
ASGI = """
async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi"})
"""
HOOKS = """
def noted(name):
    def hook(*args):
        [worker] = [arg for arg in args if hasattr(arg, "age")]
        with open("seen", "a") as file:
            file.write(f"{name} {type(worker).__name__}\\n")
    return hook

def pre_fork(server, worker): noted("pre_fork")(worker)
def post_fork(server, worker): noted("post_fork")(worker)
def post_worker_init(worker): noted("post_worker_init")(worker)
def worker_exit(server, worker): noted("worker_exit")(worker)
def child_exit(server, worker): noted("child_exit")(worker)
"""


def serve(start: Start, place: Path, application: str, *arguments: str) -> Server:
    (place / "app.py").write_text(application)
    return start("-b", f"unix:{place}/s", *arguments, "app", cwd=place).wait_ready()


def using(server: Server) -> list[str]:
    return [line.partition("Using worker: ")[2] for line in server.log.splitlines() if "Using worker: " in line]


@pytest.mark.parametrize(
    ("application", "reason"),
    [(WSGI, "wsgi (app is not an async callable)"), (ASGI, "asgi (app is an async callable)")],
)
def test_the_log_says_it_once(start: Start, short_path: Path, application: str, reason: str) -> None:
    server = serve(start, short_path, application, "-w", "2")
    first = server.wait_workers(2)
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ")
    server.wait_workers(2, besides=[each.pid for each in first])
    assert answer(f"{short_path}/s").body == reason[:4].encode()
    assert using(server) == [reason]


def test_a_reload_may_bring_the_other_one(start: Start, short_path: Path) -> None:
    server = serve(start, short_path, WSGI)
    [first] = server.wait_workers(1)
    assert answer(f"{short_path}/s").body == b"wsgi"
    (short_path / "app.py").write_text(ASGI)
    server.kill(signal.SIGHUP)
    server.wait_workers(1, besides=[first.pid])
    assert answer(f"{short_path}/s").body == b"asgi"
    assert using(server) == ["wsgi (app is not an async callable)", "asgi (app is an async callable)"]


def test_gunicorns_way_to_uvicorn_leads_to_our_own(start: Start, short_path: Path) -> None:
    server = serve(start, short_path, ASGI, "-k", "uvicorn.workers.UvicornWorker")
    assert answer(f"{short_path}/s").body == b"asgi"
    assert using(server) == ["uvicorn.workers.UvicornWorker"]
    assert "sdserve's own ASGI worker serves in its place" in server.log


@pytest.mark.parametrize(
    ("application", "named", "said"),
    [
        (
            ASGI,
            "wsgi",
            "App failed to load: app is an async callable, so an ASGI application, which worker_class = 'wsgi'",
        ),
        (
            WSGI,
            "asgi",
            "App failed to load: app is not an async callable, so a WSGI application, which worker_class = 'asg",
        ),
        ("async def application(): ...", "auto", "App failed to load: app is async, and cannot be called with a scope"),
        ("def application(): ...", "auto", "App failed to load: app cannot be called with .* with parentheses"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(
    start: Start, short_path: Path, application: str, named: str, said: str
) -> None:
    (short_path / "app.py").write_text(application)
    for check in ((), ("--check-config",)):
        server = start("-b", f"unix:{short_path}/s", "-k", named, *check, "app", cwd=short_path)
        assert server.wait() == 4
        server.wait_log(said.removeprefix("App failed to load: ") if check else said)
        assert "Traceback" not in server.log


@pytest.mark.parametrize("named", ["auto", "asgi"])
def test_the_extra_is_named_where_it_is_missed(start: Start, short_path: Path, named: str) -> None:
    (short_path / "uvloop.py").write_text("raise ImportError('as if it were not installed')\n")
    server = serve(start, short_path, ASGI, "-k", named)
    assert answer(f"{short_path}/s").body == b"asgi"
    server.wait_log("asgi_loop: asyncio's loop, since uvloop is not installed: pip install 'sdserve.asgi.'")
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    server = start("-b", f"unix:{short_path}/s", "-k", named, "--asgi-loop", "uvloop", "app", cwd=short_path)
    assert server.wait() == 3
    server.wait_log("asgi_loop = 'uvloop': uvloop is not installed: pip install 'sdserve.asgi.'")
    assert "Traceback" not in server.log


def test_a_class_that_is_named_is_said_at_the_start(start: Start, short_path: Path) -> None:
    server = serve(start, short_path, WSGI, "-k", "wsgi")
    assert using(server) == ["wsgi"]
    assert server.log.index("Using worker: ") < server.log.index("Booting worker")


def test_hooks_see_what_it_became(start: Start, short_path: Path) -> None:
    (short_path / "conf.py").write_text(HOOKS)
    server = serve(start, short_path, WSGI, "-c", "conf.py")
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    seen = dict(line.split() for line in (short_path / "seen").read_text().splitlines())
    before = dict.fromkeys(("pre_fork", "post_fork"), "AutoWorker")
    assert seen == before | dict.fromkeys(("post_worker_init", "worker_exit", "child_exit"), "WSGIWorker")


HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
)


def handshakes(place: Path, count: int) -> set[bytes]:
    """The first lines of the answers."""
    found = set()
    for _ in range(count):
        with connector(f"{place}/s")() as client:
            client.sendall(HANDSHAKE.encode())
            found.add(client.recv(1000).partition(b"\r\n")[0])
    return found


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError", "SyntaxError", "OSError"])
def test_a_websocket_without_the_extra_is_refused_and_that_is_said_once(
    start: Start, short_path: Path, error: str
) -> None:
    """It is looked for once by the master and once by each worker of the start, which was forked before, and never
    again: what is installed meanwhile is another version's, for all that they know."""
    (short_path / "websockets.py").write_text(f"open('tried', 'a').write('.')\nraise {error}('as if broken')\n")
    server = serve(start, short_path, ASGI, "-w", "2")
    first = [each.pid for each in server.wait_workers(2)]
    refused = {b"HTTP/1.1 501 Not Implemented"}
    assert handshakes(short_path, 10) == refused
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ")
    server.wait_workers(2, besides=first)
    assert handshakes(short_path, 10) == refused
    assert answer(f"{short_path}/s").body == b"asgi"
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    said = rf"A WebSocket was asked for .*{error}: as if broken.* pip install 'sdserve\[asgi\]'"
    assert 1 <= len(re.findall(said, server.log)) <= 4, "once by each worker that was asked"
    assert "Traceback" not in server.log
    assert 1 <= len((short_path / "tried").read_text()) <= 3


def test_a_hung_request_is_noticed_though_websockets_is_broken(start: Start, short_path: Path) -> None:
    """The client was there before the service: its request is what the master hears of behind `ready`."""
    (short_path / "websockets.py").write_text("raise RuntimeError('as if broken')\n")
    hangs = '    assert scope["type"] == "http"\n    __import__("time").sleep(600)\n'
    (short_path / "app.py").write_text("async def application(scope, receive, send):\n" + hangs)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(f"{short_path}/s")
        listener.listen()
        client.connect(f"{short_path}/s")
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server = start("--timeout", "1", "app", cwd=short_path, sockets=[(listener, "http")])
        server.wait_log("WORKER TIMEOUT")
    assert server.log.count("cannot import sdserve.http.websocket: RuntimeError: as if broken") <= 1
    assert "Exception in the master" not in server.log
