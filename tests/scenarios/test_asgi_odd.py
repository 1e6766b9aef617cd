"""Applications that do odd things, and what must not come of them: each of these once went wrong."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path

import pytest

from tests.support.corners import LOOPS
from tests.support.load import ask
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually

APP = """
import asyncio, os, sys, tempfile

NEXT = []

async def exit():
    sys.exit(7)

def factory(loop, coro, **more):  # as some wrote it before contexts could be passed
    return asyncio.Task(coro, loop=loop)

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        what = (await receive())["type"]
        if os.environ.get("FAILS"):
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        else:
            await send({"type": "lifespan.startup.complete"})
        return  # and takes no notice of the shutdown
    path, body = scope["path"].rpartition("/")[2], b"hello"
    if path == "cancelled_file":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            async with asyncio.timeout(0.3):
                await send({"type": "http.response.pathsend", "path": os.environ["LARGE"]})
        except TimeoutError:
            NEXT.extend(open(os.environ["SECRET"], "rb") for _ in range(20))
            raise
    elif path == "impatient":
        await receive()
        for _ in range(300):
            try:
                await asyncio.wait_for(receive(), 0.001)
            except TimeoutError:
                pass
        body = str(len(send.__self__._bells)).encode()
    elif path == "exit":
        sys.exit(7)
    elif path == "exit_in_task":
        await asyncio.gather(exit())
    elif path == "holds":
        print("holds", flush=True)
        await asyncio.sleep(3600)
    elif path == "factory":
        asyncio.get_running_loop().set_task_factory(factory)
    elif path == "path":
        body = f"{scope['root_path']} {scope['path']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""
Serve = Callable[..., tuple[Server, tuple[str, int]]]


@pytest.fixture
def serve(start: Callable[..., Server], tmp_path: Path) -> Iterator[Serve]:
    def serve(*args: str, **env: str) -> tuple[Server, tuple[str, int]]:
        (tmp_path / "app.py").write_text(APP)
        address = ("127.0.0.1", free_port())
        server = start("-b", "{}:{}".format(*address), "--keep-alive", "60", *args, "app", cwd=tmp_path, env=env)
        return server.wait_ready(), address

    yield serve


def test_a_file_whose_sending_was_cancelled_is_never_another_one(serve: Serve, tmp_path: Path) -> None:
    """Its descriptor is closed, and its number is soon that of the next file."""
    (tmp_path / "large").write_bytes(b"x" * 40_000_000)
    (tmp_path / "secret").write_bytes(b"SECRET" * 10_000)
    server, address = serve("--asgi-sendfile", LARGE=str(tmp_path / "large"), SECRET=str(tmp_path / "secret"))
    with connector(address)() as sock:
        sock.sendall(b"GET /cancelled_file HTTP/1.1\r\nHost: a\r\n\r\n")
        server.wait_log("Error handling request GET /cancelled_file|the client went away")
        got = bytearray()
        try:
            while data := sock.recv(1 << 20):
                got += data
        except ConnectionResetError:
            pass
    assert b"SECRET" not in got and len(got) < 40_000_000
    assert answer(address).body == b"hello"


def test_a_receive_that_is_cancelled_leaves_nothing(serve: Serve) -> None:
    _, address = serve()
    assert answer(address, "/impatient").body == b"0"


def test_a_handler_that_exits_has_failed_and_a_task_that_does_ends_its_worker(serve: Serve) -> None:
    server, address = serve("-w", "1")
    [worker] = server.workers
    assert answer(address, "/exit").status == 500
    assert server.workers == [worker]
    with connector(address)() as held, connector(address)() as sock:
        held.sendall(b"GET /holds HTTP/1.1\r\nHost: a\r\n\r\n")
        server.wait_log("^holds")
        sock.sendall(b"GET /exit_in_task HTTP/1.1\r\nHost: a\r\n\r\n")
        server.wait_workers(1, besides=[worker.pid])
        for each in (held, sock):
            assert each.recv(65536).startswith(b"HTTP/1.1 500 ")
    assert re.search(rf"{worker.pid}.* exited with code 7", server.log)
    assert re.search(
        r"WARNING\] GET /holds has run for \S+ s, and is cut: the application has ended its worker$", server.log, re.M
    )
    assert "Error handling request GET /holds" not in server.log
    assert answer(address).body == b"hello"


def test_an_old_task_factory_serves(serve: Serve) -> None:
    _, address = serve()
    with connector(address)() as sock:
        for path in ("/factory", "/", "/"):
            assert ask(sock, path).status == 200


@pytest.mark.parametrize("root", ["/app", "/other"])
def test_a_mount_that_the_proxy_has_taken_away_is_recorded_and_refused_to_nobody(serve: Serve, root: str) -> None:
    server, address = serve("--access-logfile", "-", SCRIPT_NAME=root)
    with connector(address)() as sock:
        for _ in range(3):
            assert ask(sock, "/path").status == 200
    eventually(lambda: server.log.count('"GET /path HTTP/1.1" 200') == 3)


@pytest.mark.parametrize("kind", ["asgi", "auto"])
def test_what_cannot_be_loaded_is_named(start: Callable[..., Server], tmp_path: Path, kind: str) -> None:
    server = start("-b", f"127.0.0.1:{free_port()}", "-k", kind, "nosuch:app", cwd=tmp_path)
    assert server.wait() == 4 or "nosuch" in server.log
    assert "nosuch:app" in server.log and "has no attribute" not in server.log


def test_who_takes_no_notice_of_a_shutdown_ends_without_a_complaint(serve: Serve) -> None:
    server, address = serve()
    assert answer(address).body == b"hello"
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert "ERROR" not in server.log and "shutdown failed" not in server.log


def test_a_startup_that_fails_is_one_failure(start: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    server = start("-b", f"127.0.0.1:{free_port()}", "app", cwd=tmp_path, env={**os.environ, "FAILS": "1"})
    assert server.wait() == 3
    assert "no database" in server.log and "shutdown failed" not in server.log


LASTS = """
import asyncio

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("the shutdown begins", flush=True)
        await asyncio.sleep(3600)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_a_quick_stop_cuts_the_shutdown_of_a_worker_that_has_served(
    start: Callable[..., Server], tmp_path: Path, loop: str
) -> None:
    (tmp_path / "app.py").write_text(LASTS)
    address = ("127.0.0.1", free_port())
    server = start("-b", f"{address[0]}:{address[1]}", "--asgi-loop", loop, "app", cwd=tmp_path).wait_ready()
    assert answer(address).body == b"here"
    server.kill(signal.SIGTERM)
    server.wait_log("the shutdown begins")
    server.kill(signal.SIGQUIT)
    assert server.wait() == 0
    assert "Worker exiting" in server.log
    assert "was killed" not in server.log and "SIGKILL" not in server.log


TOLD = """
import asyncio, os, signal, socket, time
close = socket.socket.close
WHEN = os.environ["WHEN"]
armed = os.path.exists("armed")
if armed:  # this worker alone is told to leave
    os.unlink("armed")

def note(what):
    if armed:
        with open("notes", "a") as file:
            file.write(what + "\\n")

def told(number=signal.SIGTERM):
    os.kill(os.getpid(), number)

def told_amid(self):
    "As if the master had told the worker to leave in this very line of its event loop."
    socket.socket.close = close
    told()
    close(self)

async def waits(how):
    try:
        if how == "waits":
            asyncio.get_running_loop().call_later(0.01, told)
            await asyncio.sleep(3600)
        elif how == "blocks":
            told()
            time.sleep(3600)
    finally:
        note(f"{how} no more")

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if armed and WHEN.startswith("startup"):
            await waits(WHEN.partition(" ")[2])
        if armed and WHEN == "loop":
            socket.socket.close = told_amid
        await send({"type": "lifespan.startup.complete"})
        note((await receive())["type"])
        if armed and WHEN == "again":
            told()
        if armed and WHEN == "quick":
            told(signal.SIGQUIT)
            await asyncio.sleep(3600)
        await asyncio.sleep(0.01)
        note("shut down")
        await send({"type": "lifespan.shutdown.complete"})
        return
    if armed:
        await waits(WHEN.partition(" ")[2] or "waits")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})
"""
SHUT_DOWN = ["lifespan.shutdown", "shut down"]


NOTES = {
    "startup waits": ["waits no more"],
    "startup blocks": ["blocks no more"],
    "warm-up waits": ["waits no more", *SHUT_DOWN],
    "warm-up blocks": ["blocks no more", *SHUT_DOWN],
    "again": ["waits no more", *SHUT_DOWN],
    "quick": ["waits no more", "lifespan.shutdown"],
    "loop": SHUT_DOWN,
}
# asyncio's own code calls nothing that an application could replace.
MOMENTS = [each for each in product(NOTES, LOOPS) if each != ("loop", "asyncio")]


@pytest.mark.parametrize(("when", "loop"), MOMENTS)
def test_a_worker_that_is_told_to_leave_while_it_boots_shuts_its_application_down(
    start: Callable[..., Server], short_path: Path, when: str, loop: str
) -> None:
    """Once it has begun, and nobody cuts that but who must be quick. A boot that blocks its event loop ends, too."""
    (short_path / "app.py").write_text(TOLD)
    options = ("-w", "1", "-k", "asgi", "--asgi-loop", loop, "--warmup", "/", "--lifespan-shutdown-timeout", "20")
    server = start("-b", f"unix:{short_path}/s", *options, "app", cwd=short_path, env={"WHEN": when}).wait_ready()
    (short_path / "armed").touch()
    server.kill(signal.SIGHUP)
    eventually((short_path / "notes").exists, "a worker that is told to leave while it boots")
    server.wait_log("Worker exiting", timeout=10)
    assert (short_path / "notes").read_text().splitlines() == NOTES[when]
    assert answer(f"{short_path}/s").body == b"here"
    assert "Traceback" not in server.log and "lifespan" not in server.log


FAILS = """
import asyncio, json
from sdserve.workers.asgi.loop import ASGILoop

rest, turns, seen, tasks = ASGILoop._rest, 0, [], []

def fails(self, now):
    if len(seen) < 6:
        seen.append(turns)
        raise OSError("out of luck")
    rest(self, now)

async def turn():
    global turns
    while len(seen) < 6:
        turns += 1
        await asyncio.sleep(0)

async def application(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/fail":
        ASGILoop._rest = fails
        tasks.append(asyncio.ensure_future(turn()))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_that_pauses_after_a_failure_leaves_the_event_loop_to_the_application(
    start: Callable[..., Server], short_path: Path, loop: str
) -> None:
    (short_path / "app.py").write_text(FAILS)
    server = start("-w", "1", "-k", "asgi", "--asgi-loop", loop, "-b", f"unix:{short_path}/s", "app", cwd=short_path)
    server.wait_ready()
    assert answer(f"{short_path}/s", "/fail").status == 200
    seen = eventually(lambda: len(seen := json.loads(answer(f"{short_path}/s").body)) == 6 and seen)
    turns = [after - before for before, after in pairwise(seen)]  # between two failures there is a pause
    assert len(turns) == 5 and min(turns) > 10
    assert server.log.count("Error in the loop of worker") == 6
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
