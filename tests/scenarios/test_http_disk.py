"""A disk without room costs the request that needs it, and nothing else: no connection, no worker, no thread."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.load import ask
from tests.support.processes import spooled
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually

Address = tuple[str, int]
THREADS = pytest.mark.parametrize("threads", ["1", "4"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory in which a MiB has room."""
    path = tmp_path / "small"
    path.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a tmpfs here: {error}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def serve(start: Callable[..., Server], *args: str, **env: str) -> tuple[Server, Address]:
    address = ("127.0.0.1", free_port())
    server = start("-b", "{}:{}".format(*address), *args, "web", env=env)
    return server.wait_ready(), address


def upload(address: Address, size: int, piece: int, framing: str = "sized", path: str = "/ignore") -> int:
    """The status of an upload that is sent to its end whatever the server says meanwhile."""
    with connector(address)() as sock:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        try:
            if framing == "sized":
                sock.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
                for at in range(0, size, piece):
                    sock.sendall(bytes(min(piece, size - at)))
            else:
                sock.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
                for at in range(0, size, piece):
                    data = bytes(min(piece, size - at))
                    sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))
                sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        got = b""
        while not got.endswith(b"\n") and (data := sock.recv(65536)):
            got += data
        return int(got.split()[1])


@THREADS
def test_a_full_disk_is_the_uploads_failure_alone(start: Callable[..., Server], small_disk: Path, threads: str) -> None:
    server, address = serve(start, "--threads", threads, TMPDIR=str(small_disk))
    (worker,) = server.workers
    with connector(address)() as kept:
        for size, piece, framing, status in [
            (1_300_000, 1000, "sized", 507),
            (1_300_000, 65536, "chunked", 507),
            (1_048_676, 65536, "sized", 507),
            (600_000, 65536, "sized", 200),
            (3_000_000, 3_000_000, "sized", 507),
        ]:
            assert upload(address, size, piece, framing) == status
            kept.sendall(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            assert kept.recv(65536).endswith(b"hello")
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda size: upload(address, size, 4096), [200_000, 700_000] * 8))
    assert set(statuses) <= {200, 507}
    assert statuses[::2] == [200] * 8
    assert answer(address, "/hello").body == b"hello"
    assert server.workers == [worker]
    server.wait_log(rf"\[ERROR\] .*507 Insufficient Storage: no room for the request's body in {small_disk}: No space")
    assert "Traceback" not in server.log


@THREADS
def test_uploads_beyond_the_limit_for_all_may_come_again(start: Callable[..., Server], threads: str) -> None:
    server, address = serve(start, "--threads", threads, "--spool-limit", "2M")
    (worker,) = server.workers
    with connector(address)() as first:
        first.sendall(b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 1600001\r\n\r\n" + bytes(1_600_000))
        eventually(lambda: spooled(worker.pid) == 1_600_000)
        with connector(address)() as second:
            second.sendall(b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\n" + bytes(600_000))
            got = second.recv(65536)
        assert got.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in got
        assert upload(address, 200_000, 4096) == 200
        first.sendall(b"x")
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        eventually(lambda: spooled(worker.pid) == 0, "a thread gives the room back once it has answered")
        assert upload(address, 600_000, 4096) == 200
    assert server.workers == [worker]


@THREADS
def test_without_descriptors_an_upload_may_come_again(start: Callable[..., Server], threads: str) -> None:
    server, address = serve(start, "--threads", threads)
    (worker,) = server.workers
    socks = [connector(address)() for _ in range(2)]
    socks[0].sendall(b"POST /ignore HTTP/1.1\r\n")  # idle ones would be closed, to make room for others
    socks[1].sendall(b"GET /hello HTTP/1.1\r\n")
    kept = connector(address)()
    assert ask(kept, "/hello").status == 200
    limit = max(map(int, os.listdir(f"/proc/{worker.pid}/fd"))) + 2
    subprocess.run(["prlimit", "--pid", str(worker.pid), f"--nofile={limit}"], check=True)
    # No more than there is room for: a worker that is full closes idle ones, and has room for a moment.
    holders = [connector(address)() for _ in range(limit - worker.descriptors)]
    eventually(lambda: worker.descriptors == limit, "nothing is left")
    socks[0].sendall(b"Host: a\r\nContent-Length: 600000\r\n\r\n" + bytes(600_000))
    got = socks[0].recv(65536)
    assert got.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in got
    for sock in (kept, *holders):
        sock.close()
    socks[1].sendall(b"Host: a\r\n\r\n")
    assert socks[1].recv(65536).endswith(b"hello")
    assert server.workers == [worker]


@THREADS
def test_what_write_cannot_leave_anywhere_ends_before_its_call_counts_as_hung(
    start: Callable[..., Server], small_disk: Path, tmp_path: Path, threads: str
) -> None:
    """Its client reads all the time, and too slowly to be waited for."""
    address = ("127.0.0.1", free_port())
    env = {"TMPDIR": str(small_disk), "STREAM_EVENTS": str(tmp_path / "events")}
    bind = "{}:{}".format(*address)
    server = start("-b", bind, "-t", "2", "--threads", threads, "streams", env=env).wait_ready()
    (worker,) = server.workers
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(20)
        sock.connect(address)
        sock.sendall(b"GET /pushed?1000 HTTP/1.1\r\nHost: a\r\n\r\n")
        pace = threading.Event()
        cut = "GET /pushed?1000 is cut: no room for what write() sends"
        while cut not in server.log and sock.recv(100):
            pace.wait(0.001)
        assert cut in server.log and "has run for" not in server.log
    assert answer(address, "/hello").body == b"hello"
    assert server.workers == [worker]


def test_a_body_is_refused_when_nothing_comes(start: Callable[..., Server]) -> None:
    """Whatever came before: a fast beginning does not buy time."""
    _, address = serve(start, "--body-timeout", "0.5")
    with socket.create_connection(address, timeout=15) as sock:
        sock.sendall(b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + bytes(8_000_000))
        assert sock.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_a_body_has_a_greatest_size(start: Callable[..., Server]) -> None:
    _, address = serve(start)
    with connector(address)() as sock:
        sock.sendall(b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741825\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
