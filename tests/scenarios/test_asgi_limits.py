"""What an ASGI worker does not let itself in for: too many calls, calls for nobody, a loop that is blocked."""

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.support.load import ask
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually

APP = """
import asyncio, os, time

held = []

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            what = (await receive())["type"]
            if what == "lifespan.shutdown":
                print("shutdown is told", flush=True)
            await send({"type": what + ".complete"})
            if what == "lifespan.shutdown":
                return
    path, body = scope["path"], b"hello"
    if path == "/hold":
        door = asyncio.Event()
        held.append(door)
        try:
            await door.wait()
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
    elif path == "/open":
        body = str(len(held)).encode()
        for door in held:
            door.set()
        held.clear()
    elif path == "/pid":
        body = str(os.getpid()).encode()
    elif path == "/block":
        open(scope["query_string"], "w").close()
        time.sleep(60)
    elif path == "/block_later":
        await asyncio.sleep(0)
        open(scope["query_string"], "w").close()
        while True:
            pass
    elif path == "/cancels":
        raise asyncio.CancelledError
    elif path == "/known":
        headers = [(b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(10):
            await send({"type": "http.response.body", "body": b"x" * 100, "more_body": number < 9})
            await asyncio.sleep(0.1)
        return
    elif path == "/stream":
        assert (await receive())["type"] == "http.request"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})
            assert (await asyncio.wait_for(receive(), 60))["type"] == "http.disconnect"
            print("disconnect is told", flush=True)
            return
        finally:
            print("stream has ended", flush=True)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
Serve = Callable[..., tuple[Server, tuple[str, int]]]


@pytest.fixture
def serve(start: Callable[..., Server], tmp_path: Path) -> Iterator[Serve]:
    def serve(*args: str) -> tuple[Server, tuple[str, int]]:
        (tmp_path / "app.py").write_text(APP)
        address = ("127.0.0.1", free_port())
        server = start("-b", "{}:{}".format(*address), "--keep-alive", "60", *args, "app", cwd=tmp_path)
        return server.wait_ready(), address

    yield serve


def asked(address: tuple[str, int], path: str) -> socket.socket:
    sock = connector(address)()
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return sock


@LOOPS
def test_beyond_limit_concurrency_a_call_is_refused_and_connections_are_not(serve: Serve, loop: str) -> None:
    _, address = serve("--asgi-loop", loop, "--limit-concurrency", "3")
    idle = [connector(address)() for _ in range(10)]
    for sock in idle:  # who is idle does not count
        ask(sock)
    held = [asked(address, "/hold") for _ in range(3)]
    eventually(lambda: answer(address).status == 503, "all places are taken")
    with asked(address, "/") as sock:
        assert b"Retry-After: 5\r\n" in sock.recv(1000)
    held[0].close()  # its call goes on, and so it still counts
    assert answer(address).status == 503
    assert ask(idle[0]).status == 503
    for sock in idle:
        sock.close()


@LOOPS
def test_a_call_whose_client_has_gone_is_cancelled_if_that_is_wanted(serve: Serve, loop: str) -> None:
    server, address = serve("--asgi-loop", loop, "--asgi-disconnect-grace-period", "1")
    with asked(address, "/hold") as staying:
        asked(address, "/hold").close()
        server.wait_log("cancelled")
        eventually(lambda: answer(address, "/open").body != b"0")
        assert staying.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert server.log.count("cancelled") == 1


@LOOPS
@pytest.mark.parametrize("way", ["/block", "/block_later"])
def test_who_blocks_the_event_loop_is_named_and_the_others_move(
    serve: Serve, tmp_path: Path, loop: str, way: str
) -> None:
    mark = tmp_path / "mark"
    server, address = serve("--asgi-loop", loop, "-w", "1", "-t", "1", "--graceful-timeout", "8")
    (worker,) = server.workers
    idle = [connector(address)() for _ in range(5)]
    for sock in idle:
        ask(sock)
    begun = connector(address)()
    begun.sendall(b"GET /pid HTTP/1.1\r\nHo")
    waiting = asked(address, "/hold")
    assert answer(address).body == b"hello"  # all of the above has been read
    with asked(address, f"{way}?{mark}") as stuck:
        eventually(mark.exists, "the loop is blocked")
        server.wait_log(rf"GET {way}\?\S+ has run for \S+ s, and blocks the event loop")
        server.wait_log("It is at:")
        server.wait_log("app.py")
        worker.wait_gone()
        with pytest.raises(ConnectionResetError):
            stuck.recv(1000)
    waiting.close()
    for sock in idle:
        assert ask(sock, "/pid").body != str(worker.pid).encode()
    begun.sendall(b"st: a\r\n\r\n")
    assert begun.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert server.wait_workers(1, [worker.pid])


@LOOPS
def test_a_call_that_only_lasts_is_no_hang(serve: Serve, loop: str) -> None:
    server, address = serve("--asgi-loop", loop, "-t", "1")
    (worker,) = server.workers
    with asked(address, "/hold") as held:
        began = monotonic()
        eventually(lambda: monotonic() - began > 2.5, "longer than timeout, and the master has looked")
        assert answer(address, "/open").body == b"1"
        assert held.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert server.workers == [worker] and "Worker timeout" not in server.log


@LOOPS
def test_what_is_cut_is_named_and_the_application_is_told_of_the_shutdown(serve: Serve, loop: str) -> None:
    server, address = serve("--asgi-loop", loop, "--graceful-timeout", "2")
    with asked(address, "/hold"), asked(address, "/stream") as stream:
        assert stream.recv(1000).startswith(b"HTTP/1.1 200 ")
        server.kill(signal.SIGTERM)
        server.wait_log(r"GET /hold has run for \S+ s, and is cut: graceful_timeout is over")
        assert server.wait() == 0
    server.wait_log("shutdown is told")
    assert server.log.count("is cut") == 1 and "Exception" not in server.log


@LOOPS
def test_a_request_outlives_the_master_and_the_application_is_told_of_the_shutdown(serve: Serve, loop: str) -> None:
    """By default the shutdown may take as long as all that a worker has without its master."""
    server, address = serve("--asgi-loop", loop, "-w", "1")
    [worker] = server.wait_workers(1)
    with asked(address, "/known") as sock:
        got = sock.recv(1000)
        server.kill(signal.SIGKILL)
        while data := sock.recv(1000):
            got += data
    assert got.endswith(b"x" * 1000) and got.count(b"x" * 100) == 10
    worker.wait_gone(15)
    server.wait_log("shutdown is told")
    assert "is cut" not in server.log


def test_the_shutdown_has_its_share_of_the_time_without_a_master(serve: Serve) -> None:
    server, address = serve("--orphan-timeout", "4", "-w", "1")
    [worker] = server.wait_workers(1)
    with asked(address, "/hold"):
        eventually(lambda: answer(address).body == b"hello")
        server.kill(signal.SIGKILL)
        server.wait_log(r"GET /hold has run for [23]\.\d s, and is cut: orphan_timeout is over")
        server.wait_log("shutdown is told")
        worker.wait_gone(15)


@LOOPS
def test_a_quick_stop_tells_of_the_shutdown_too(serve: Serve, loop: str) -> None:
    server, address = serve("--asgi-loop", loop)
    with asked(address, "/hold"):
        eventually(lambda: answer(address).body == b"hello")
        server.kill(signal.SIGINT)
        assert server.wait() == 0
    server.wait_log("shutdown is told")


@LOOPS
def test_a_response_of_known_length_is_finished_and_no_stream(serve: Serve, loop: str) -> None:
    server, address = serve("--asgi-loop", loop, "--stream-grace", "0")
    with asked(address, "/known") as sock:
        got = sock.recv(1000)
        server.kill(signal.SIGTERM)
        while data := sock.recv(1000):
            got += data
    assert got.endswith(b"x" * 1000) and got.count(b"x" * 100) == 10
    assert server.wait() == 0


@LOOPS
def test_a_cancellation_that_is_not_ours_is_an_error(serve: Serve, loop: str) -> None:
    server, address = serve("--asgi-loop", loop)
    assert answer(address, "/cancels").status == 500
    server.wait_log("Error handling request GET /cancels")


@LOOPS
def test_a_stream_without_end_holds_no_stop_longer_than_it_may(serve: Serve, loop: str) -> None:
    server, address = serve("--asgi-loop", loop, "--stream-grace", "0")
    with asked(address, "/stream") as sock:
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        server.kill(signal.SIGTERM)
        server.wait_log("disconnect is told")
        assert server.wait() == 0
    server.wait_log("shutdown is told")
