"""A request that never ends takes nothing with it: what else its worker holds is answered by others, or moves there."""

import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.load import ask
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually

Address = tuple[str, int]
GET = b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
LARGE = 100_000  # bytes of a body that is too large to travel


@dataclass
class Clients:
    """What a worker holds when one of its requests gets stuck."""

    idle: list[socket.socket]
    heads: list[socket.socket]  # with GET[:20] sent
    body: socket.socket  # with half of it sent
    large: socket.socket
    waiting: list[socket.socket]  # with a whole request, which nobody has read
    stuck: socket.socket


def serve(start: Callable[..., Server], *args: str, threads: int = 1) -> tuple[Server, Address]:
    address = ("127.0.0.1", free_port())
    patience = ("--keep-alive", "60", "--header-timeout", "60", "--graceful-timeout", "8", "-t", "1")
    server = start("-b", "{}:{}".format(*address), *patience, "--threads", str(threads), *args, "web")
    return server.wait_ready(), address


def stick(address: Address, way: str, mark: Path) -> socket.socket:
    sock = connector(address)()
    sock.sendall(f"GET /stuck?{way}:{mark} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    eventually(mark.exists, "the application is stuck")
    return sock


def gather(address: Address, way: str, tmp_path: Path) -> Clients:
    def connect(sent: bytes = b"") -> socket.socket:
        sock = connector(address)()
        sock.sendall(sent)
        return sock

    idle = [connect() for _ in range(6)]
    for sock in idle:
        ask(sock)
    heads = [connect(GET[:20]), connect(GET[:20])]
    body, large = connect(POST), connect(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % LARGE)
    assert body.recv(100).startswith(b"HTTP/1.1 100 ")
    body.sendall(b"hello")
    large.sendall(b"x" * (LARGE - 1))
    for _ in range(3):
        assert answer(address).body == b"hello"  # all of the above has been read
    stuck = stick(address, way, tmp_path / "mark")
    late = idle.pop()
    late.sendall(GET)
    return Clients(idle, heads, body, large, [late, connect(GET)], stuck)


def whole(sock: socket.socket, end: bytes) -> bytes:
    """An answer whose body ends so; an end of file before that is a failure."""
    got = b""
    while not got.endswith(end):
        data = sock.recv(65536)
        assert data, got[-100:]
        got += data
    return got


def is_lost(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("way", ["sleep", "recv"])
def test_what_the_only_thread_holds_is_given_away_or_answered(
    start: Callable[..., Server], tmp_path: Path, way: str
) -> None:
    server, address = serve(start)
    (old,) = server.workers
    clients = gather(address, way, tmp_path)
    server.wait_log(rf"GET /stuck\?{way}:\S+ has run for 1\.\d s")
    server.wait_log(r"web\.py.* in stuck")
    for sock in clients.waiting:  # nobody but the replacement could
        got = whole(sock, b"\r\n0\r\n\r\n")
        assert f"X-Pid: {old.pid}".encode() not in got
    assert is_lost(clients.stuck)
    for sock in clients.heads:
        sock.sendall(GET[20:])
        assert f"X-Pid: {old.pid}".encode() not in whole(sock, b"\r\n0\r\n\r\n")
    clients.body.sendall(b"there")
    assert b"hellothere" in whole(clients.body, b"\r\n0\r\n\r\n")
    assert old.alive  # for the one that was too large to move
    clients.large.sendall(b"y")
    assert b"xxxy" in whole(clients.large, b"\r\n0\r\n\r\n")
    for sock in clients.idle:
        assert ask(sock, "/pid").pid != old.pid
    server.wait_log(rf"Worker aborted \(pid {old.pid}\)")
    old.wait_gone()
    server.wait_workers(1, besides=[old.pid])


def test_a_request_that_holds_the_interpreter_ends_its_worker(start: Callable[..., Server], tmp_path: Path) -> None:
    server, address = serve(start)
    (old,) = server.workers
    clients = gather(address, "clutch", tmp_path)
    server.wait_log(r"in stuck")  # faulthandler's, which does not need the interpreter
    old.wait_gone()
    for sock in (clients.stuck, *clients.idle, *clients.heads, clients.body, clients.large):
        assert is_lost(sock)
    late, new = clients.waiting
    assert is_lost(late)
    whole(new, b"\r\n0\r\n\r\n")  # it had not been accepted
    assert answer(address).body == b"hello"


def test_what_the_others_do_not_take_is_finished_in_time(start: Callable[..., Server], tmp_path: Path) -> None:
    """The large body never ends; the worker does."""
    server, address = serve(start, "--graceful-timeout", "1.5")
    (old,) = server.workers
    clients = gather(address, "sleep", tmp_path)
    old.wait_gone()
    assert is_lost(clients.large)
    for sock in clients.idle:
        assert ask(sock, "/pid").pid != old.pid
    assert "SIGKILL" not in server.log


def test_hooks_are_called_at_the_end_of_a_worker_that_was_stuck(start: Callable[..., Server], tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text(
        "def worker_abort(worker): worker.log.info('hook: abort, alive %s', worker.alive)\n"
        "def post_request(worker, req, environ, resp):\n"
        "    worker.log.info('hook: post %s %s %r', req.path, environ['PATH_INFO'], resp.status)\n"
        "def worker_exit(server, worker): worker.log.info('hook: exit')\n"
    )
    server, address = serve(start, "-c", str(config))
    stick(address, "sleep", tmp_path / "mark")
    server.wait_log(r"hook: abort, alive False(.|\n)*hook: post /stuck /stuck ''(.|\n)*hook: exit")


def test_a_stop_while_a_request_is_stuck_ends_in_time(start: Callable[..., Server], tmp_path: Path) -> None:
    """Nobody will adopt: who is idle is closed, who waits is answered here."""
    server, address = serve(start)
    clients = gather(address, "recv", tmp_path)
    server.kill(signal.SIGTERM)
    for sock in clients.waiting[:1]:
        whole(sock, b"\r\n0\r\n\r\n")
    assert server.wait() == 0


def test_when_all_threads_are_stuck_another_one_serves(start: Callable[..., Server], tmp_path: Path) -> None:
    # The second must get stuck before the first has the worker replaced, or it is the replacement that it meets.
    server, address = serve(start, "-t", "5", threads=2)
    (old,) = server.workers
    clients = gather(address, "sleep", tmp_path)
    second = stick(address, "recv", tmp_path / "second")
    late = connector(address)()
    late.sendall(GET)
    for sock in (late, *clients.waiting):
        whole(sock, b"\r\n0\r\n\r\n")
    clients.body.sendall(b"there")
    assert b"hellothere" in whole(clients.body, b"\r\n0\r\n\r\n")
    clients.large.sendall(b"y")
    whole(clients.large, b"\r\n0\r\n\r\n")
    old.wait_gone()
    assert server.log.count("is cut: it hangs, and its worker has finished everything else") == 2
    server.wait_log(rf"replacement(.|\n)*Booting worker(.|\n)*Worker exiting \(pid: {old.pid}\)")
    for sock in clients.idle:
        assert ask(sock, "/pid").pid != old.pid
    assert is_lost(clients.stuck)
    assert is_lost(second)
    assert "WORKER TIMEOUT" not in server.log


BLOCKER = """
import logging, threading

class Blocker(logging.Handler):
    \"\"\"A log that blocks at one line, as a pipe that nobody reads.\"\"\"
    def emit(self, record):
        if "400" in record.getMessage():
            threading.Event().wait(600)

def post_worker_init(worker):
    worker.log.error_log.addHandler(Blocker())
"""


@pytest.mark.parametrize("threads", [1, 4])
def test_a_worker_in_which_nobody_polls_is_noticed(start: Callable[..., Server], tmp_path: Path, threads: int) -> None:
    """Whoever led hangs outside of a call, where no other thread can take the lead from it."""
    config = tmp_path / "conf.py"
    config.write_text(BLOCKER)
    server, address = serve(start, "-c", str(config), threads=threads)
    (old,) = server.workers
    wrong = connector(address)()
    wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")  # without Host: what is logged of it is the last that this worker does
    server.wait_log(r"WORKER TIMEOUT \(pid:\d+\)")
    old.wait_gone()
    server.wait_workers(1, besides=[old.pid])
    assert answer(address).body == b"hello"
