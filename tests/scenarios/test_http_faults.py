"""What goes wrong with one request, in ways that nobody foresaw, goes wrong for its own client alone."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import ask
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually

Address = tuple[str, int]
THREADS = pytest.mark.parametrize("threads", ["1", "4"])


def serve(start: Callable[..., Server], *args: str, app: str = "faulty") -> tuple[Server, Address]:
    address = ("127.0.0.1", free_port())
    server = start("-b", "{}:{}".format(*address), "--keep-alive", "60", *args, app)
    return server.wait_ready(), address


def provoke(address: Address, path: str) -> bytes:
    """All that a client gets for a request, until its connection ends one way or the other."""
    got = b""
    with connector(address)() as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        try:
            while data := sock.recv(65536):
                got += data
        except ConnectionResetError:
            pass
    return got


@THREADS
def test_a_result_that_cannot_be_closed(start: Callable[..., Server], threads: str) -> None:
    server, address = serve(start, "--threads", threads)
    pids = {answer(address, "/pid").body}
    other = connector(address)()
    ask(other, "/pid")
    for _ in range(3):
        provoke(address, "/bad_close")
    server.wait_log("of a property")
    pids |= {ask(other, "/pid").body, answer(address, "/pid").body}
    assert len(pids) == 1  # nobody noticed


@THREADS
def test_an_application_that_closes_the_connections_of_its_server(start: Callable[..., Server], threads: str) -> None:
    """Those connections are lost. Their numbers are given out again, and mean new connections then."""
    _, address = serve(start, "--threads", threads)
    pids = {answer(address, "/pid").body}
    idle = [connector(address)() for _ in range(5)]
    for sock in idle:
        ask(sock, "/pid")
    for _ in range(3):
        provoke(address, "/connections")
        kept = [connector(address)() for _ in range(8)]
        for _ in range(3):
            pids |= {ask(sock, "/pid").body for sock in kept}
    assert len(pids) == 1
    assert [sock.recv(1) for sock in idle] == [b""] * 5


@THREADS
def test_an_application_that_closes_everything_has_its_worker_replaced(
    start: Callable[..., Server], threads: str
) -> None:
    server, address = serve(start, "--threads", threads, "--timeout", "5")  # another thread may poll by then, in vain
    (old,) = server.workers
    provoke(address, "/everything")
    server.wait_workers(1, besides=[old.pid])
    assert answer(address, "/pid").status == 200


@pytest.mark.parametrize("way", ["wakeup", "pipes"])
def test_an_application_that_takes_the_wake_up_descriptor(start: Callable[..., Server], way: str) -> None:
    """Its worker hears all the same that it is to leave, and does not wait for the next request to do so."""
    server, address = serve(start, "--graceful-timeout", "60", "--header-timeout", "60")
    (old,) = server.workers
    idle = connector(address)()
    ask(idle, f"/{way}")
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded")
    old.wait_gone()
    assert int(ask(idle, "/pid").body) != old.pid  # given away, as at any other time


@THREADS
@pytest.mark.parametrize("hook", ["pre_request(worker, req)", "post_request(worker, req, environ, resp)"])
def test_a_hook_that_wants_to_leave(start: Callable[..., Server], tmp_path: Path, threads: str, hook: str) -> None:
    config = tmp_path / "conf.py"
    config.write_text(f"def {hook}:\n    if req.path == '/leave': raise SystemExit('of a hook')\n")
    server, address = serve(start, "--threads", threads, "-c", str(config))
    pid = answer(address, "/pid").body
    provoke(address, "/leave")
    server.wait_log("of a hook")
    assert answer(address, "/pid").body == pid


def test_what_came_while_a_call_kept_the_worker_is_not_late(start: Callable[..., Server], tmp_path: Path) -> None:
    """Head and body of others arrive in time, while the only thread is in a call that outlasts their time-outs."""
    _, address = serve(start, "--header-timeout", "1", "--body-timeout", "1")
    head, body, silent, slow = (connector(address)() for _ in range(4))
    head.sendall(b"GET /hello HTTP/1.1\r\nHo")
    body.sendall(b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
    answer(address, "/hello")  # all of that has been read
    begun = tmp_path / "begun"
    slow.sendall(f"GET /outlast?{begun} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    eventually(begun.exists, "the call has begun")
    head.sendall(b"st: a\r\n\r\n")
    body.sendall(b"llo")
    for sock in (slow, head, body):
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert silent.recv(65536) == b""  # and who sent nothing is closed all the same


@THREADS
def test_who_has_just_come_is_not_closed_for_the_next(start: Callable[..., Server], threads: str) -> None:
    """More clients than there is room for, each with a moment between its connection and its request, and another one
    before the next: all wait for their turn, and none of them meets a closed connection."""
    address = ("127.0.0.1", free_port())
    few = ("bash", "-c", 'ulimit -n 64; exec "$@"', "bash", *Server.PROGRAM)
    options = ("--header-timeout", "60", "--keep-alive", "60", "--threads", threads)
    start("-b", "{}:{}".format(*address), *options, "web", program=few).wait_ready()
    clients = [connector(address)() for _ in range(40)]
    moment = threading.Event()  # never set
    moment.wait(0.2)
    for client in clients:
        client.sendall(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
    for client in clients:
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


@THREADS
def test_silent_connections_make_room_for_those_that_ask(start: Callable[..., Server], threads: str) -> None:
    address = ("127.0.0.1", free_port())
    few = ("bash", "-c", 'ulimit -n 64; exec "$@"', "bash", *Server.PROGRAM)
    options = ("--header-timeout", "60", "--keep-alive", "60", "--threads", threads)
    server = start("-b", "{}:{}".format(*address), *options, "web", program=few).wait_ready()
    half = connector(address)()
    half.sendall(b"GET /hello HTTP/1.1\r\nHo")
    kept = connector(address)()
    ask(kept)
    silent = [connector(address)() for _ in range(100)]
    assert answer(address).body == b"hello"
    assert ask(kept).body == b"hello"  # it has been of use, and they were not
    half.sendall(b"st: a\r\n\r\n")
    assert half.recv(65536).startswith(b"HTTP/1.1 200 ")  # its request had begun
    assert silent[0].recv(1) == b""
    server.wait_log(r"is full \(\d+ connections\)")
