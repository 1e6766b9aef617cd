"""What ASGI applications hear of their clients: bodies as they come, ends at once, room when there is some."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.support.corners import LOOPS, Corners, corners
from tests.support.processes import Process
from tests.support.waiting import eventually
from tests.support.wire import get

LENGTH = "POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n"
CHUNKED = "POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECTS = "POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n"
GONE = ["Disconnected", "ClientGone", "ConnectionError", "OSError", "Exception"]
END = {"type": "http.disconnect"}


@pytest.fixture(scope="module", params=LOOPS)
def at(request: pytest.FixtureRequest) -> Iterator[Corners]:
    limits = ("--body-timeout", "1", "--keep-alive", "60")
    with corners(request.param, "--log-level", "debug", *limits, "--asgi-sendfile") as served:
        yield served


@pytest.fixture(autouse=True)
def serving(at: Corners) -> Iterator[None]:
    """Whatever a client does, others are served: on connections that are open, and on new ones."""
    with at.wire(get("/")) as other:
        assert other.response().body == b"hello"
        yield
        assert other.send(get("/")).response().body == b"hello"
    at.is_well()


def quiet(at: Corners, mark: int) -> None:
    """Nothing was logged as an error since, nor a traceback but at debug."""
    error = r"\[(ERROR|CRITICAL|WARNING)\]|(?<!: what it raised\n)Traceback"
    assert not re.search(error, at.server.log[mark:]), at.server.log[mark:]


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (get("/messages"), [[0, False]]),
        (get("/messages", method="POST", body=b"hello"), [[5, False]]),
        (CHUNKED.format("/messages").encode() + b"5\r\nhello\r\n0\r\n\r\n", [[5, False]]),
        (CHUNKED.format("/messages").encode() + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", [[5, False]]),
        (CHUNKED.format("/messages").encode() + b"0\r\nX-Sum: 1\r\n\r\n", [[0, False]]),
    ],
)
def test_a_body_whose_end_is_known_is_one_message(at: Corners, data: bytes, messages: list[list[object]]) -> None:
    with at.wire(data) as wire:
        assert json.loads(wire.response().body) == messages


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_comes_as_it_is_sent(at: Corners, chunked: bool) -> None:
    key = at.key()
    head = (CHUNKED if chunked else LENGTH).format(f"/reads_on?{key}", 15).encode()
    with at.wire(head) as wire:
        for number in range(3):
            wire.send(b"5\r\nhello\r\n" if chunked else b"hello")
            assert at.wait_seen(key, number + 1) == ["http.request"] * (number + 1)
        if chunked:
            wire.send(b"0\r\n\r\n")
            at.wait_seen(key, 4)
    assert at.wait_seen(key, 4 + chunked)[-1] == "http.disconnect"


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 3_000_000])
def test_large_bodies_arrive_whole(at: Corners, size: int) -> None:
    body = (b"0123456789abcde\n" * (size // 16 + 1))[:size]
    with at.wire(get("/echo", method="POST", body=body)) as wire:
        assert wire.response().body == body
        pieces = b"".join(
            b"%x\r\n%b\r\n" % (len(body[at : at + 9999]), body[at : at + 9999]) for at in range(0, size, 9999)
        )
        wire.send(CHUNKED.format("/echo").encode() + pieces + b"0\r\n\r\n")
        assert wire.response().body == body


def test_a_body_is_read_once_though_the_answer_begins_amid_it(at: Corners) -> None:
    with at.wire(LENGTH.format("/both", 10).encode() + b"hello") as wire:
        assert wire.head()["Connection"] == "close"  # nobody knew that the rest would be read
        assert wire._take(14) == b"6\r\nbegun \r\n5\r\n"
        wire.send(b"world")
        assert wire.rest() == b"hello\r\n5\r\nworld\r\n0\r\n\r\n"
    chunked = CHUNKED.format("/both").encode() + b"5\r\nhello\r\n"
    with at.wire(chunked + b"5\r\nworld\r\n0\r\n\r\n" + get("/")) as wire:
        assert wire.response().body == b"begun helloworld"
        assert wire.response().body == b"hello"


def test_nobody_reads_ahead_of_the_application(at: Corners) -> None:
    """What it does not take waits at its client's expense."""
    key = at.key()
    with at.wire(LENGTH.format(f"/slowly?{key}", 50_000_000).encode()) as wire:
        at.wait_seen(key, 1)
        wire.sock.setblocking(False)
        sent = 0
        while True:
            try:
                sent += wire.sock.send(bytes(1 << 20))
            except BlockingIOError:
                break
        assert sent < 20_000_000
        wire.sock.settimeout(20)
        at.let(key)
        wire.send(bytes(50_000_000 - sent))
        assert wire.response().body == b"50000000"


def test_after_the_body_receive_waits_for_the_end(at: Corners) -> None:
    key = at.key()
    assert at.ask(f"/after_body?{key}", method="POST", body=b"hello").body == b"read"
    assert at.wait_seen(key, 3) == [0, END, END]


def test_a_body_is_asked_for_when_it_is_waited_for(at: Corners) -> None:
    with at.wire() as wire:
        for _ in range(2):
            wire.send(EXPECTS.format("/echo", 5).encode())
            assert wire._line() == "HTTP/1.1 100 Continue" and not wire._fields()
            assert wire.send(b"hello").response().body == b"hello"
        found = wire.send(EXPECTS.format("/echo", 5).encode() + b"hello").response()
        assert (found.body, found.interim) == (b"hello", [])  # who does not wait is not asked
        found = wire.send(EXPECTS.format("/ignore", 5).encode()).response()
        assert (found.body, found.interim, found["Connection"]) == (b"ignored", [], "close")
        assert wire.rest() == b""


def test_a_body_that_nobody_reads_ends_the_connection_unless_it_is_there(at: Corners) -> None:
    with at.wire() as wire:
        for _ in range(2):
            assert wire.send(get("/ignore", method="POST", body=b"hello")).response().body == b"ignored"
        chunked = CHUNKED.format("/ignore").encode() + b"5\r\nhello\r\n0\r\n\r\n"
        assert wire.send(chunked).response().body == b"ignored"
        wire.send(LENGTH.format("/ignore", 10_000_000).encode())
        assert wire.response()["Connection"] == "close"
        wire.send(bytes(100_000))
        assert wire.rest() == b""


@pytest.mark.parametrize("path", ["/echo", "/ignore"])
def test_a_body_that_is_malformed_is_a_400(at: Corners, path: str) -> None:
    mark = at.server.mark
    with at.wire(CHUNKED.format(path).encode() + b"5\r\nhello,,0\r\n\r\n" + get("/")) as wire:
        assert wire.response().status == 400
        assert wire.rest() == b""
    quiet(at, mark)


def test_a_body_that_goes_wrong_amid_the_answer_ends_it(at: Corners) -> None:
    mark = at.server.mark
    with at.wire(CHUNKED.format("/listens").encode()) as wire:
        assert wire.head().status == 200
        wire.send(b"5\r\nhello,,")
        assert wire.rest() == b"5\r\nbegun\r\n"
    at.server.wait_log("/listens: its answer is cut: chunk data is not followed by CRLF", since=mark)
    at.server.wait_log("POST /listens: the client went away, and the application raised Left", since=mark)
    at.server.wait_log(r"DEBUG. POST /listens: what it raised\nTraceback.*\n(.*\n)+?corners.Left", since=mark)
    quiet(at, mark)


def test_a_body_is_waited_for_no_longer_because_something_was_sent_meanwhile(at: Corners) -> None:
    key = at.key()
    with at.wire(LENGTH.format(f"/two_ways?{key}", 10).encode() + b"hello") as wire:
        found = wire.response()
        assert (found.status, len(found.body), found.whole) == (200, 8_000_000, False)
    assert at.wait_seen(key, 3) == [5, END, None]


def test_a_body_that_is_too_slow_is_a_408(at: Corners) -> None:
    with at.wire(LENGTH.format("/echo", 10).encode() + b"hello") as wire:
        assert wire.response().status == 408


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_application_that_waits_hears_of_the_end_at_once(at: Corners, how: str) -> None:
    key, mark = at.key(), at.server.mark
    wire = at.wire(get(f"/waits?{key}"))
    at.wait_seen(key, 1)
    wire.close() if how == "close" else wire.reset()
    assert at.wait_seen(key, 2) == ["waits", END]
    quiet(at, mark)


def test_it_hears_of_the_end_amid_a_body(at: Corners) -> None:
    key = at.key()
    with at.wire(LENGTH.format(f"/reads_on?{key}", 10).encode() + b"hello"):
        at.wait_seen(key, 1)
    assert at.wait_seen(key, 2) == ["http.request", "http.disconnect"]


def test_it_hears_of_the_end_though_more_was_asked_for(at: Corners) -> None:
    key = at.key()
    with at.wire(get(f"/waits?{key}") + get("/")):
        at.wait_seen(key, 1)
    assert at.wait_seen(key, 2) == ["waits", END]


def test_send_raises_once_the_client_has_gone(at: Corners) -> None:
    key, mark = at.key(), at.server.mark
    with at.wire(get(f"/sends_on?{key}")) as wire:
        wire.head()
    assert at.wait_seen(key, 3) == [GONE, GONE, END]
    quiet(at, mark)


@pytest.mark.parametrize("path", ["/sends_unheard", "/wraps_it"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_what_comes_of_a_client_that_left_is_no_error(at: Corners, path: str, how: str) -> None:
    mark = at.server.mark
    wire = at.wire(get(path))
    wire.head()
    wire.close() if how == "close" else wire.reset()
    at.server.wait_log(f"GET {path}: the client went away", since=mark)
    quiet(at, mark)


def test_a_stream_that_is_silent_hears_of_the_end(at: Corners) -> None:
    key, mark = at.key(), at.server.mark
    with at.wire(get(f"/listens?{key}")) as wire:
        wire.head()
    assert at.wait_seen(key, 2) == [END, GONE]
    quiet(at, mark)


def test_what_goes_on_behind_the_answer_ends_as_it_likes(at: Corners) -> None:
    """The connection serves the next request meanwhile, or goes."""
    key = at.key()
    with at.wire(get(f"/behind?{key}")) as wire:
        assert wire.response().body == b"hello"
        assert wire.send(get("/")).response().body == b"hello"
    assert at.wait_seen(key, 1) == ["waits"]
    at.let(key)
    assert at.wait_seen(key, 4) == ["waits", "goes on", END, "over"]


# --- room -------------------------------------------------------------------------------------------------------------


def test_a_reader_that_does_not_read_holds_up_its_application_only(at: Corners) -> None:
    key = at.key()
    (worker,) = at.server.workers
    with at.wire(get(f"/pours?{key}")) as wire:
        wire.head()
        sent = eventually(lambda: (n := at.seen(key)[0]) == at.seen(key)[0] and n, "it waits")
        before = Process.of(worker.pid).ticks
        for _ in range(20):
            at.is_well()
        assert at.seen(key)[0] < 200, "send waits for room"
        assert sent < 200
        assert Process.of(worker.pid).ticks - before < 50, "nobody spins"
        found = 0
        while found < 400:
            size = int(wire._take_line(), 16)
            assert size == 65536 and wire._take(size) == bytes(size) and wire._take(2) == b"\r\n"
            found += 1
        assert wire._take_line() == b"0\r\n"
    assert at.wait_seen(key, 1) == [400]


def test_one_large_message_does_not_hold_the_application(at: Corners) -> None:
    """`send` comes back when it is buffered; the client reads it at leisure, and asks for more."""
    key = at.key()
    with at.wire(get(f"/at_once?{key}")) as wire:
        assert at.wait_seen(key, 1) == ["sent"]
        found = wire.response()
        assert found.whole and len(found.body) == 8_000_000
        assert wire.send(get("/")).response().body == b"hello"


def test_a_reader_that_leaves_amid_a_large_answer_is_no_error(at: Corners) -> None:
    mark = at.server.mark
    for path in ("/at_once", "/pours", "/large_file"):
        for _ in range(3):
            with at.wire(get(f"{path}?{at.key()}")) as wire:
                wire.head()
    at.is_well()
    quiet(at, mark)


# --- several requests -------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(at: Corners) -> None:
    asked = [*("/", "/stream", "/path?here", "/tasks", "/at_first", "/no_content", "/raises_after")] * 5
    with at.wire(b"".join(map(get, asked)) + get("/echo", method="POST", body=b"last")) as wire:
        for path in asked:
            found = wire.response()
            assert found.whole and found.status == (204 if path == "/no_content" else 200), path
        assert wire.response().body == b"last"


def test_who_shuts_the_sending_half_is_answered_where_the_answer_is_made_at_once(at: Corners) -> None:
    with at.wire(get("/") + get("/stream") + get("/echo", method="POST", body=b"x" * 300_000)) as wire:
        wire.half()
        assert wire.response().body == b"hello"
        assert wire.response().body == b"0 1 2 3 4 "
        assert wire.response().body == b"x" * 300_000
        assert wire.rest() == b""
