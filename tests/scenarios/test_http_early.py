"""An application is asked before a body that its client holds back, and nobody waits for that client."""

import hashlib
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import spooled
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually

THREADS = pytest.mark.parametrize("threads", ["1", "4"])
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Served:
    def __init__(self, start: Callable[..., Server], tmp_path: Path, threads: str, *args: str) -> None:
        self.address = ("127.0.0.1", free_port())
        self._events = tmp_path / "events"
        bind = "{}:{}".format(*self.address)
        env = {"EARLY_EVENTS": str(self._events)}
        self.server = start("-b", bind, "--threads", threads, *args, "early", env=env).wait_ready()
        (self.worker,) = self.server.workers

    def events(self) -> list[str]:
        return self._events.read_text().splitlines()

    def begin(self, path: str, length: int, *fields: str, method: str = "PUT", version: str = "1.1") -> socket.socket:
        """A client that has sent the head of an upload."""
        sock = connector(self.address)()
        head = [f"{method} {path} HTTP/{version}", "Host: a", f"Content-Length: {length}", *fields, "", ""]
        sock.sendall("\r\n".join(head).encode())
        return sock

    def is_quick(self) -> None:
        for _ in range(5):
            assert answer(self.address, "/hello").status == 200


EXPECT = "Expect: 100-continue"


def head_and_body(sock: socket.socket) -> tuple[bytes, bytes]:
    got = b""
    while b"\r\n\r\n" not in got:
        data = sock.recv(65536)
        assert data, got
        got += data
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(65536)
    return head, body


@THREADS
def test_who_is_refused_sends_nothing(start: Callable[..., Server], tmp_path: Path, threads: str) -> None:
    served = Served(start, tmp_path, threads)
    with served.begin("/refuse", 200 << 20, EXPECT) as sock:
        head, body = head_and_body(sock)
        assert head.startswith(b"HTTP/1.1 401 ")
        assert b"\r\nConnection: close" in head  # whether the body still comes, nobody knows
        assert body == b"who are you?"
        assert sock.recv(1) == b""


@THREADS
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_no_reset_overtakes_the_answer_to_who_still_uploads(
    start: Callable[..., Server], tmp_path: Path, threads: str, version: str
) -> None:
    """Whoever has said that this is the last request may be in the middle of its body all the same."""
    served = Served(start, tmp_path, threads, "--request-buffering", "off")
    body = bytes(32 << 20)  # more than the sockets hold
    with served.begin("/refuse", len(body), "Connection: close", version=version) as sock:
        sock.sendall(body)
        assert head_and_body(sock)[1] == b"who are you?"
        assert sock.recv(1) == b""


def test_no_reset_overtakes_an_answer_that_a_hook_made_the_last(start: Callable[..., Server], tmp_path: Path) -> None:
    conf = tmp_path / "conf.py"
    conf.write_text("def pre_request(worker, req):\n    req.force_close()\n")
    served = Served(start, tmp_path, "1", "-c", str(conf))
    with connector(served.address)() as sock:
        sock.sendall(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n" * 500_000)  # the client knows nothing of it
        assert head_and_body(sock)[0].startswith(b"HTTP/1.1 200 ")
        assert sock.recv(1) == b""


@THREADS
@pytest.mark.parametrize("way", ["sum", "length", "all"])
def test_a_body_is_asked_for_when_it_is_read(
    start: Callable[..., Server], tmp_path: Path, threads: str, way: str
) -> None:
    served = Served(start, tmp_path, threads)
    data = os.urandom(3_000_000)
    with served.begin(f"/{way}", len(data), EXPECT) as sock:
        assert sock.recv(100) == CONTINUE
        sock.sendall(data[:1_000_000])
        served.is_quick()  # while the call waits
        sock.sendall(data[1_000_000:])
        head, body = head_and_body(sock)
        assert body.decode() == hashlib.sha256(data).hexdigest()
        assert b"Connection: close" not in head
        assert spooled(served.worker.pid) == 0
        sock.sendall(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")  # the connection goes on
        assert head_and_body(sock)[0].startswith(b"HTTP/1.1 200 ")


@THREADS
def test_a_body_that_comes_as_fast_as_it_is_read_arrives_whole(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    """The call pauses again and again just when more comes, often in a thread that has lost the lead by then."""
    served = Served(start, tmp_path, threads)
    data = bytes(100_000_000)
    for _ in range(20):
        with served.begin("/count", len(data), EXPECT) as sock:
            assert sock.recv(100) == CONTINUE
            sock.sendall(data)
            head, body = head_and_body(sock)
            assert head.startswith(b"HTTP/1.1 200 "), served.server.log
            assert body == b"100000000"
    served.server.kill(signal.SIGTERM)
    assert served.server.wait() == 0


@THREADS
def test_many_who_send_nothing_hold_up_nobody(start: Callable[..., Server], tmp_path: Path, threads: str) -> None:
    served = Served(start, tmp_path, threads, "--body-timeout", "3")
    socks = [served.begin("/sum", 1000, EXPECT) for _ in range(80)]  # more than are called before their bodies
    for sock in socks:
        assert sock.recv(100) == CONTINUE
    served.is_quick()
    for sock in socks[:10]:
        sock.close()
    socks[20].sendall(bytes(1000))
    assert head_and_body(socks[20])[1].decode() == hashlib.sha256(bytes(1000)).hexdigest()
    for sock in socks[21:]:
        assert sock.recv(100).startswith(b"HTTP/1.1 408 ")
    served.is_quick()
    assert served.server.workers == [served.worker]
    eventually(lambda: len(os.listdir(f"/proc/{served.worker.pid}/task")) <= 6, "no thread is left of them")


@THREADS
def test_the_application_sees_a_body_that_does_not_come_as_an_error_of_reading(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, threads, "--body-timeout", "0.5")
    with served.begin("/caught", 1000, EXPECT) as sock:
        assert sock.recv(100) == CONTINUE
        assert head_and_body(sock)[1] == b"TooSlow"
        assert sock.recv(1) == b""


@THREADS
def test_head_gets_no_body_with_the_error_of_reading_either(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, threads, "--body-timeout", "0.5")
    with served.begin("/sum", 1000, EXPECT, method="HEAD") as sock:
        assert sock.recv(100) == CONTINUE
        head, _, body = b"".join(iter(lambda: sock.recv(4096), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert body == b""


@pytest.mark.parametrize("framing", ["Content-Length: 26", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("expect", ["X: y", EXPECT])
def test_wsgi_input_is_read_by_the_letter(
    start: Callable[..., Server], tmp_path: Path, framing: str, expect: str
) -> None:
    served = Served(start, tmp_path, "1")
    data = b"first\nsecond\nthird\nfourth\n"
    with connector(served.address)() as sock:
        sock.sendall(f"PUT /lines HTTP/1.1\r\nHost: a\r\n{framing}\r\n{expect}\r\n\r\n".encode())
        if expect == EXPECT:
            assert sock.recv(100) == CONTINUE
        pieces = [data[at : at + 1] for at in range(len(data))]
        if "chunked" in framing:
            pieces = [b"1\r\n%b\r\n" % piece for piece in pieces] + [b"0\r\n\r\n"]
        for piece in pieces:
            sock.sendall(piece)
        expected = [b"first\n", b"sec", [b"ond\n"], [b"third\n", b"fourth\n"], b"", b""]
        assert head_and_body(sock)[1] == repr(expected).encode()


@THREADS
def test_an_answer_may_begin_while_the_body_is_read(start: Callable[..., Server], tmp_path: Path, threads: str) -> None:
    served = Served(start, tmp_path, threads)
    with served.begin("/both", 20, EXPECT) as sock:
        assert sock.recv(100) == CONTINUE
        sock.sendall(b"0123456789")
        assert b"3\r\n10;\r\n" in sock.recv(4096)
        sock.sendall(b"0123456789")
        assert sock.recv(4096).startswith(b"3\r\n10;\r\n")


@THREADS
def test_without_buffering_a_large_body_is_read_as_it_comes(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, threads, "--request-buffering", "off")
    data = os.urandom(3_000_000)
    with served.begin("/sum", len(data)) as sock, served.begin("/refuse", 200 << 20) as other:
        sock.sendall(data[:2_000_000])
        assert head_and_body(other)[0].startswith(b"HTTP/1.1 401 ")
        served.is_quick()
        assert spooled(served.worker.pid) == 0
        sock.sendall(data[2_000_000:])
        assert head_and_body(sock)[1].decode() == hashlib.sha256(data).hexdigest()


def test_with_buffering_every_body_comes_first(start: Callable[..., Server], tmp_path: Path) -> None:
    served = Served(start, tmp_path, "1", "--request-buffering", "on")
    with served.begin("/refuse", 10, EXPECT) as sock:
        assert sock.recv(100) == CONTINUE
        sock.sendall(bytes(10))
        head, _ = head_and_body(sock)
        assert head.startswith(b"HTTP/1.1 401 ") and b"close" not in head


@THREADS
def test_a_call_that_hangs_is_told_where_it_hangs(start: Callable[..., Server], tmp_path: Path, threads: str) -> None:
    """Not where the thread is that waits for it."""
    served = Served(start, tmp_path, threads, "-t", "1")
    served.begin("/hang", 10, EXPECT)
    served.server.wait_log(r"PUT /hang has run for ")
    told = served.server.wait_log(r"It is at:\n(?:.*\n)*?.*in hang\n")
    assert "_back.acquire" not in told.group()


@THREADS
def test_a_stop_that_cuts_an_upload_tells_the_application(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, threads, "--graceful-timeout", "1")
    socks = [served.begin("/noted", 1000, EXPECT) for _ in range(3)]
    for sock in socks:
        assert sock.recv(100) == CONTINUE
    served.server.kill(signal.SIGTERM)
    assert served.server.wait() == 0
    assert served.events().count("noted ClientGone") == 3


@THREADS
def test_where_no_thread_can_be_started_bodies_are_received_first(
    start: Callable[..., Server], tmp_path: Path, threads: str
) -> None:
    served = Served(start, tmp_path, threads)
    served.is_quick()
    status = Path(f"/proc/{served.worker.pid}/status").read_text()
    size = int(status.partition("VmSize:")[2].split()[0]) << 10
    resource.prlimit(served.worker.pid, resource.RLIMIT_AS, (size + (4 << 20), -1))  # a stack is 8 MiB
    data = os.urandom(600_000)
    with served.begin("/sum", len(data), EXPECT) as sock:
        assert sock.recv(100) == CONTINUE
        sock.sendall(data)
        assert head_and_body(sock)[1].decode() == hashlib.sha256(data).hexdigest()
    served.server.wait_log("a body is received first: can't start new thread")
    resource.prlimit(served.worker.pid, resource.RLIMIT_AS, (-1, -1))
    with served.begin("/refuse", 200 << 20, EXPECT) as sock:
        assert head_and_body(sock)[0].startswith(b"HTTP/1.1 401 ")


def test_a_call_that_hangs_goes_no_further_once_the_rest_is_finished_without_it(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    """With one thread nothing of the application runs at the same time as anything else of it."""
    served = Served(start, tmp_path, "1", "-t", "1", "--request-buffering", "auto")
    large = [served.begin("/count", 100_000) for _ in range(2)]  # too large to be given to another worker
    for sock in large:
        sock.sendall(bytes(99_999))
    served.is_quick()
    stuck = served.begin("/spin", 10, EXPECT)
    with pytest.raises(ConnectionResetError):
        stuck.recv(1)
    large[0].sendall(b"x")
    assert head_and_body(large[0])[1] == b"100000"  # by the old worker, which finishes what it holds
    spins = served.events().count("spins")
    large[1].sendall(b"x")
    assert head_and_body(large[1])[1] == b"100000"
    assert served.events().count("spins") == spins
    assert served.events()[-1].startswith("called count")
