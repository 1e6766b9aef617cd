"""Responses that are made as they go: nothing of them is made before its client has room, and nobody waits for it."""

import contextlib
import gzip
import http.client
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.apps.streams import CONSTANT, PIECE
from tests.support.processes import Process, spooled
from tests.support.server import Server, answer, free_port
from tests.support.waiting import eventually

Address = tuple[str, int]
THREADS = pytest.mark.parametrize("threads", ["1", "4"])


class Served:
    """The application `streams` on one worker, and what it notes."""

    def __init__(self, start: Callable[..., Server], tmp_path: Path, *args: str) -> None:
        self.address = ("127.0.0.1", free_port())
        self._events = tmp_path / "events"
        self._events.touch()
        self.access = tmp_path / "access"
        bind = "{}:{}".format(*self.address)
        log = ("--access-logfile", str(self.access), "--access-logformat", "%(r)s %(s)s %(B)s %(X)s")
        self.server = start("-b", bind, *log, *args, "streams", env={"STREAM_EVENTS": str(self._events)}).wait_ready()
        (self.worker,) = self.server.workers

    def events(self) -> list[str]:
        return self._events.read_text().splitlines()

    def records(self) -> list[str]:
        return self.access.read_text().splitlines()

    def ask(self, path: str, version: str = "1.1") -> socket.socket:
        """A client that has asked, and reads nothing by itself."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.settimeout(20)
        sock.connect(self.address)
        sock.sendall(f"GET {path} HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        return sock


def memory(process: Process) -> int:
    """Bytes, each shared page divided among its users."""
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


def body(sock: socket.socket) -> bytes:
    with sock:
        response = http.client.HTTPResponse(sock)
        response.begin()
        return response.read()


@THREADS
def test_an_iterable_costs_nothing_while_its_client_does_not_read(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, "--threads", threads)
    assert body(served.ask("/numbers?warm,10")) and served.ask("/hello").recv(4096)
    before = memory(served.worker)
    names = [f"client{number}" for number in range(16)]
    socks = {name: served.ask(f"/numbers?{name},400") for name in names}
    for _ in range(10):
        assert answer(served.address, "/hello").body == b"hello"
    assert memory(served.worker) - before < 8 << 20
    assert spooled(served.worker.pid) == 0
    assert served.events() == ["closed warm 10"]
    for name in names[1:]:  # each goes on where it was, in its own thread and its own context
        got = body(socks[name])
        assert len(got) == 400 * PIECE
        for number in range(400):
            assert got.startswith(b"%08d%b." % (number + 1, name.encode()), number * PIECE), number
    eventually(lambda: len(served.events()) == 16)
    socks[names[0]].close()  # and one will never want more
    eventually(lambda: len(served.events()) == 17)
    made = int(served.events()[-1].removeprefix("closed client0 "))
    assert 0 < made < 400
    assert sorted(served.events()[1:16]) == sorted(f"closed {name} 400" for name in names[1:])
    assert "Traceback" not in served.server.log
    assert served.server.workers == [served.worker]


@THREADS
def test_the_access_record_says_what_left_and_whether_that_was_all(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, "--threads", threads)
    for path in ("/numbers?a,400", "/constant"):
        sock = served.ask(path)
        assert sock.recv(10)
        assert not any(path in line for line in served.records())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    eventually(lambda: len(served.records()) == 2)
    lines = {line.split()[1].partition("?")[0]: line.split() for line in served.records()}
    assert lines["/numbers"][3:4] == lines["/constant"][3:4] == ["200"]
    assert 0 < int(lines["/numbers"][4]) < 400 * PIECE and lines["/numbers"][5] == "X"
    assert 0 < int(lines["/constant"][4]) < len(CONSTANT) and lines["/constant"][5] == "X"
    assert body(served.ask("/constant")) == CONSTANT
    eventually(lambda: served.records()[-1].endswith(f" 200 {len(CONSTANT)} +"))
    assert len(body(served.ask("/numbers?b,100", "1.0"))) == 100 * PIECE
    eventually(lambda: served.records()[-1].endswith(f" 200 {100 * PIECE} -"))


@THREADS
def test_slow_readers_of_one_constant_share_it(start: Callable[..., Server], tmp_path: Path, threads: str) -> None:
    served = Served(start, tmp_path, "--threads", threads)
    assert body(served.ask("/constant")) == CONSTANT
    before = memory(served.worker)
    socks = [served.ask("/constant") for _ in range(30)]
    for sock in socks:
        assert sock.recv(1) == b"H"
    assert answer(served.address, "/hello").body == b"hello"
    assert memory(served.worker) - before < 4 << 20
    assert spooled(served.worker.pid) == 0
    for sock in socks:
        sock.close()


@THREADS
def test_what_write_pushed_comes_before_what_is_pulled(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, "--threads", threads)
    sock = served.ask("/pushed?100")
    assert answer(served.address, "/hello").body == b"hello"
    got = body(sock)
    assert [int(got[at : at + 8]) for at in range(0, len(got), PIECE)] == list(range(200))
    eventually(lambda: spooled(served.worker.pid) == 0)


@THREADS
def test_a_response_that_breaks_off_late_is_cut_and_closed(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, "--threads", threads)
    sock = served.ask("/fails?200")
    assert answer(served.address, "/hello").body == b"hello"
    with pytest.raises(http.client.IncompleteRead):
        body(sock)
    served.server.wait_log("RuntimeError: in the middle")
    eventually(lambda: any("/fails" in line and line.endswith("X") for line in served.records()))


@contextlib.contextmanager
def reading(socks: list[socket.socket]) -> Iterator[None]:
    """Clients that read as fast as they can, meanwhile."""
    stopped = threading.Event()

    def read() -> None:
        while not stopped.is_set():
            for sock in select.select(socks, [], [], 0.1)[0]:
                sock.recv(1 << 20)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        stopped.set()
        reader.join()


@THREADS
def test_a_response_without_end_whose_client_always_has_room_keeps_nobody_waiting(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, "--threads", threads)
    socks = [served.ask("/endless?5000,1") for _ in range(2 * int(threads))]  # more of them than threads
    with reading(socks):
        for sock in socks:
            eventually(partial(sock.recv, 1, socket.MSG_PEEK))
        for _ in range(20):
            assert answer(served.address, "/hello").body == b"hello"
    for sock in socks:
        sock.close()
    eventually(lambda: served.events() == ["closed endless"] * len(socks))
    assert served.server.workers == [served.worker]


@THREADS
def test_who_yields_nothing_keeps_nobody_waiting_and_ends_with_its_client(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, "--threads", threads)
    socks = [served.ask("/endless?0,0") for _ in range(2 * int(threads))]
    for _ in range(20):
        assert answer(served.address, "/hello").body == b"hello"
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    eventually(lambda: served.events() == ["closed endless"] * len(socks))
    eventually(lambda: len([line for line in served.records() if line.endswith(" 200 0 X")]) == len(socks))
    assert served.server.workers == [served.worker]


@THREADS
def test_who_yields_nothing_for_as_long_as_a_request_may_take_is_ended(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    """Whether its client waits or has gone without a word; and its worker has nothing to do with it."""
    served = Served(start, tmp_path, "--threads", threads, "-t", "1")
    waiting, gone = served.ask("/endless?0,0"), served.ask("/endless?0,0")
    gone.close()
    with waiting:
        assert waiting.recv(4096).startswith(b"HTTP/1.1 500 ")
    served.server.wait_log(r"GET /endless\?0,0(.|\n)*has sent nothing for 1\.\d s")
    eventually(lambda: served.events() == ["closed endless"] * 2)
    assert answer(served.address, "/hello").body == b"hello"
    assert served.server.workers == [served.worker]
    assert "is replaced" not in served.server.log


@pytest.mark.parametrize("count", [0, 1, 2, 3000, 40000])
def test_a_list_of_any_pieces_is_one_body(start: Callable[..., Server], tmp_path: Path, count: int) -> None:
    served = Served(start, tmp_path)
    expected = b"".join((b"%d," % number) * (1 if number % 7 else 5000) for number in range(count))
    sock = served.ask(f"/pieces?{count}")
    assert answer(served.address, "/hello").body == b"hello"
    assert body(sock) == expected


@THREADS
def test_file_wrapper_sends_what_reading_the_file_would_give(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, "--threads", threads)
    large, packed = tmp_path / "large", tmp_path / "packed.gz"
    large.write_bytes(bytes(range(256)) * 40_000)
    with gzip.open(packed, "wb") as file:
        file.write(b"unpacked" * 1000)
    sock = served.ask(f"/file?{large}")
    assert body(served.ask(f"/zipped?{packed}")) == b"unpacked" * 1000
    assert body(served.ask("/unflushed?5")) == b"vuuuu"
    assert body(served.ask("/unflushed?500000")) == b"v" + b"u" * 499_999
    assert body(served.ask("/file?/proc/version")) == Path("/proc/version").read_bytes()
    assert body(served.ask("/file?/sys/kernel/mm/transparent_hugepage/enabled")) == (
        Path("/sys/kernel/mm/transparent_hugepage/enabled").read_bytes()
    )
    assert body(served.ask("/file?/dev/null")) == b""
    with served.ask(f"/text?{__file__}") as text:
        assert text.recv(4096).startswith(b"HTTP/1.1 500 ")
    assert body(sock) == large.read_bytes()


def test_with_response_buffering_an_iterable_is_read_to_its_end(start: Callable[..., Server], tmp_path: Path) -> None:
    served = Served(start, tmp_path, "--response-buffering")
    sock = served.ask("/numbers?a,400")
    eventually(lambda: served.events() == ["closed a 400"])
    assert spooled(served.worker.pid) > 10 << 20
    assert len(body(sock)) == 400 * PIECE
    eventually(lambda: spooled(served.worker.pid) == 0)


@THREADS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_what_a_stop_cuts_is_closed_in_its_own_thread(
    start: Callable[..., Server], tmp_path: Path, threads: str, number: signal.Signals
) -> None:
    """PEP 3333: close() is called, however a response ends."""
    served = Served(start, tmp_path, "--threads", threads, "--graceful-timeout", "1")
    names = [f"client{each}" for each in range(6)]
    socks = [served.ask(f"/numbers?{name},4000") for name in names]
    for sock in socks:
        assert sock.recv(100)
    served.server.kill(number)
    assert served.server.wait() == 0
    closed = [line.split() for line in served.events()]
    assert sorted(name for _, name, _ in closed) == names
    assert all(int(made) < 4000 for _, _, made in closed)
    assert len(served.records()) == 6 and all(record.endswith(" X") for record in served.records())
