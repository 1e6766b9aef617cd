"""The first client of an activated service waits for what is imported: what no first answer needs is not among it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.server import Server, answer
from tests.support.waiting import eventually

Start = Callable[..., Server]

APP = """
import sys

def application(environ, start_response):
    start_response("200 OK", [])
    return [" ".join(sys.modules).encode()]
"""
ASGI = """
import sys

async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": " ".join(sys.modules).encode()})
"""
# Each costs as much as ten modules of our own, or brings such ones along.
HEAVY = {
    *("argparse", "ast", "asyncio", "dataclasses", "difflib", "dis", "email", "hashlib", "http.client", "inspect"),
    *("ipaddress", "json", "multiprocessing", "pathlib", "random", "shutil", "ssl", "subprocess", "sysconfig"),
    *("tempfile", "urllib.parse", "uvloop", "websockets"),
}
# What only an application that speaks ASGI has use for.
OF_ASGI = ("asyncio", "uvloop", "websockets", "sdserve.workers.asgi", "sdserve.gateway.asgi", "sdserve.http.websocket")
# Rooms of the master that open later, and what workers may need.
LATER = {"sdserve.access.log", "sdserve.arbiter.control", "sdserve.arbiter.old_master", "sdserve.arbiter.reload"}


def test_the_first_answer_waits_for_no_heavy_module(start: Start, short_path: Path) -> None:
    (short_path / "app.py").write_text(APP)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(short_path / "s"))
        listener.listen()
        client.connect(str(short_path / "s"))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        start("-w", "2", "app", sockets=[(listener, "http")], cwd=short_path)
        with client.makefile("rb") as reply:
            loaded = set(reply.read().decode().split())
    # What an environment for development loads by its .pth files, and the traceback of Python 3.14 for colours.
    program = "import sys, traceback; print(*sys.modules)"
    bare = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "sdserve.workers.wsgi.worker" in loaded
    assert sorted((loaded - set(bare.split())) & (HEAVY | LATER)) == []


def test_workers_import_what_they_may_need_once_they_serve(start: Start, short_path: Path) -> None:
    """The first one, too, which was forked before the master did."""
    (short_path / "app.py").write_text(APP)
    start("-w", "1", "-b", f"unix:{short_path}/s", "app", cwd=short_path).wait_ready()
    eventually(
        lambda: "json" in set(answer(f"{short_path}/s").body.decode().split()),
        "the first worker has what others find in memory",
    )


def test_the_first_answer_of_an_asgi_application_waits_for_no_websockets(start: Start, short_path: Path) -> None:
    """Its worker has them soon after, whether a WebSocket was asked for or not."""
    (short_path / "app.py").write_text(ASGI)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(short_path / "s"))
        listener.listen()
        client.settimeout(10)
        client.connect(str(short_path / "s"))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        start("-w", "1", "-k", "asgi", "--asgi-lifespan", "off", "app", sockets=[(listener, "http")], cwd=short_path)
        with client.makefile("rb") as reply:
            loaded = set(reply.read().decode().split())
        assert "sdserve.gateway.asgi_websocket" in loaded
        assert not loaded & {"websockets", "sdserve.http.websocket"}
        eventually(
            lambda: "sdserve.http.websocket" in set(answer(f"{short_path}/s").body.decode().split()),
            "the worker has what a WebSocket needs",
        )


def test_a_service_of_wsgi_never_imports_what_asgi_takes(start: Start, short_path: Path) -> None:
    """Neither its workers, whenever they are forked, nor the master that they are forked from."""
    (short_path / "app.py").write_text(APP)
    exits = "import sys\ndef on_exit(server): open('master', 'w').write(' '.join(sys.modules))\n"
    (short_path / "conf.py").write_text(exits)
    server = start("-w", "1", "-b", f"unix:{short_path}/s", "-c", "conf.py", "app", cwd=short_path).wait_ready()
    loaded = [set(answer(f"{short_path}/s").body.decode().split())]
    [first] = server.wait_workers(1)
    server.kill(signal.SIGHUP)
    server.wait_workers(1, besides=[first.pid])
    loaded.append(set(answer(f"{short_path}/s").body.decode().split()))
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    loaded.append(set((short_path / "master").read_text().split()))
    for modules in loaded:
        assert "sdserve.workers.wsgi.worker" in modules
        assert not [name for name in modules if name.startswith(OF_ASGI)]
