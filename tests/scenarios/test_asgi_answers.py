"""What ASGI applications send, right and wrong, and what goes over the wire for it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.corners import HERE, WRONG
from tests.support.corners import LOOPS, Corners, corners
from tests.support.wire import Wire, get

FILE = HERE.read_bytes()
SERVED = re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")


@pytest.fixture(scope="module", params=LOOPS)
def at(request: pytest.FixtureRequest) -> Iterator[Corners]:
    with corners(request.param, "--asgi-sendfile") as served:
        yield served


@pytest.fixture(autouse=True)
def serving(at: Corners) -> Iterator[None]:
    """Whatever was asked for, the worker goes on, and with it the connections of others."""
    with at.wire(get("/")) as other:
        assert other.response().body == b"hello"
        yield
        assert other.send(get("/")).response().body == b"hello"
    at.is_well()
    assert "Traceback" not in at.ask("/").body.decode()


def test_one_connection_serves_every_kind(at: Corners) -> None:
    expected = {"/": b"hello", "/stream": b"0 1 2 3 4 ", "/bare": b"", "/lists": b"hello", "/path?here": FILE}
    expected |= {"/path?empty": b"", "/path_sized": FILE, "/zerocopy_only": FILE[:9], "/no_content": b""}
    expected |= {
        "/not_modified": b"",
        "/trailers": b"hello, world",
        "/start_again": b"one two",
        "/trailers_of_nothing": b"",
    }
    expected |= {"/kinds?bytearray": b"hello", "/kinds?memoryview": b"hello", "/after_last": b"hello"}
    with at.wire() as wire:
        for path, body in list(expected.items()) * 2:
            found = wire.send(get(path)).response()
            assert (found.whole, found.body) == (True, body), path
            assert SERVED.fullmatch(found["Date"])
            assert found["Server"].startswith("sdserve/")
            assert "Connection" not in dict(found.fields)


@pytest.mark.parametrize(
    ("path", "framing"),
    [
        ("/stream", [("Transfer-Encoding", "chunked")]),
        ("/bare", [("Content-Length", "0")]),
        ("/lists", [("Content-Length", "5")]),
        ("/no_content", []),
        ("/not_modified", [("Content-Length", "7")]),
        ("/connection", [("Content-Length", "5")]),
    ],
)
def test_the_framing_is_the_servers(at: Corners, path: str, framing: list[tuple[str, str]]) -> None:
    found = at.ask(path)
    named = ("Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade")
    assert [each for each in found.fields if each[0] in named] == framing


GUSH = b"".join(b"%d" % number * 10_000 for number in range(3))


def test_large_pieces_of_one_step_leave_while_their_application_waits(at: Corners) -> None:
    key = f"waits{at.key()}"
    with at.wire(get(f"/gushes?{key}")) as wire:
        wire.head()
        assert b"".join(chunks(wire, 3)) == GUSH
        at.let(key)
        assert wire._take_line() == b"0\r\n"


def test_they_leave_before_their_connection_is_cut(at: Corners) -> None:
    with at.wire(get("/gushes?raises")) as wire:
        found = wire.response()
    assert (found.body, found.whole) == (GUSH, False)


def test_a_small_one_leaves_with_them_though_the_application_blocks_its_worker(at: Corners, tmp_path: Path) -> None:
    with at.wire(get(f"/gushes?says={tmp_path}/gate")) as wire:
        wire.head()
        assert b"".join(chunks(wire, 4)) == GUSH + b"blocked"
        (tmp_path / "gate").touch()
        assert wire._take_line() == b"0\r\n"


def chunks(wire: Wire, count: int) -> Iterator[bytes]:
    """The next chunks of an answer."""
    for _ in range(count):
        yield wire._take(int(wire._take_line(), 16))
        assert wire._take(2) == b"\r\n"


def test_head_has_no_body_and_the_length_of_get(at: Corners) -> None:
    with at.wire() as wire:
        for path in ("/", "/lists", "/bare", "/path?here", "/path_sized", "/zerocopy_only"):
            head = wire.send(get(path, method="HEAD")).response("HEAD")
            found = wire.send(get(path)).response()
            assert head.status == found.status == 200
            assert head["Content-Length"] in (found["Content-Length"], ""), path


@pytest.mark.parametrize("path", ["/stream", "/trailers", "/zerocopy", "/path?proc", "/sends_on"])
def test_head_of_an_answer_of_unknown_length_is_the_last_of_its_connection(at: Corners, path: str) -> None:
    """Its client has all of it. The application goes on, for ever perhaps, and a next request would wait for that."""
    with at.wire(get(path, method="HEAD")) as wire:
        head = wire.response("HEAD")
    assert (head.status, head["Connection"], head["Content-Length"]) == (200, "close", "")


def test_who_streams_for_ever_to_a_head_hears_that_its_client_has_gone(at: Corners) -> None:
    """Nothing is sent that could fail."""
    key = at.key()
    with at.wire(get(f"/sends_on?{key}", method="HEAD")) as wire:
        assert wire.response("HEAD").status == 200
    assert "ClientGone" in at.wait_seen(key, 3)[0]


def test_who_has_closed_its_half_before_the_head_has_all_by_that(at: Corners) -> None:
    """It reads until the end, which comes with the head: the application hears that its client has gone."""
    key = at.key()
    with at.wire(get(f"/sends_late?{key}", method="HEAD")) as wire:
        at.wait_seen(key, 1)
        wire.half()
        at.let(key)
        assert wire.response("HEAD").status == 200
        assert wire.rest() == b""
        assert "ClientGone" in at.wait_seen(key, 4)[1]


def test_what_came_behind_a_head_before_the_end_is_answered(at: Corners) -> None:
    with at.wire(get("/sized_pieces", method="HEAD") + get("/")).half() as wire:
        assert wire.response("HEAD")["Content-Length"] == "10"
        assert wire.response().body == b"hello"
        assert wire.rest() == b""


def test_names_are_sent_as_given_and_in_order(at: Corners) -> None:
    found = at.ask("/names")
    assert found.fields[:8] == [
        *(("Content-Type", "text/plain"), ("X-Upper", "1"), ("x-lower", "2"), ("X-uPPer", "3")),
        *(("Set-Cookie", "a"), ("set-cookie", "b"), ("x-latin", "é"), ("x-empty", "")),
    ]


def test_http_1_0_is_framed_by_the_end(at: Corners) -> None:
    with at.wire(get("/stream", version="1.0")) as wire:
        found = wire.response()
        assert (found.body, found["Transfer-Encoding"], found["Connection"]) == (b"0 1 2 3 4 ", "", "close")
    with at.wire(get("/", "Connection: keep-alive", version="1.0")) as wire:
        assert wire.response()["Connection"] == "keep-alive"
        assert wire.send(get("/", version="1.0")).response()["Connection"] == "close"
        assert wire.rest() == b""


def test_a_large_body_in_one_buffer_that_changes_arrives_as_it_was_sent(at: Corners) -> None:
    found = at.ask("/changes")
    assert found.body == b"".join(bytes([65 + number % 26]) * 60_000 for number in range(60))


@pytest.mark.parametrize("path", ["/path?here", "/path?proc", "/path?empty", "/zerocopy"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_files(at: Corners, path: str, version: str) -> None:
    found = at.ask(path, version=version)
    assert found.whole
    if path == "/path?proc":
        assert b"VmRSS" in found.body
    else:
        expected = {"/path?here": FILE, "/path?empty": b"", "/zerocopy": b"<" + FILE[4:9] + b">" + FILE}
        assert found.body == expected[path]


def test_a_file_that_is_missing_is_a_500(at: Corners) -> None:
    assert at.ask("/path?missing").status == 500


def test_a_large_file_has_left_when_send_comes_back(at: Corners) -> None:
    """It may be removed then."""
    found = at.ask("/large_file")
    assert found.whole and found.body == bytes(8_000_000)


# --- extensions -------------------------------------------------------------------------------------------------------


def test_trailers_are_for_those_who_want_them(at: Corners) -> None:
    found = at.ask("/trailers", "TE: deflate, trailers;q=0.5")
    assert (found.body, found.trailers) == (b"hello, world", [("X-Sum", "1"), ("X-Time", "2")])
    for lines in ((), ("TE: deflate",)):
        found = at.ask("/trailers", *lines)
        assert (found.whole, found.body, found.trailers) == (True, b"hello, world", [])
    with at.wire(get("/trailers_of_nothing", "TE: trailers") + get("/")) as wire:
        found = wire.response()
        assert (found.whole, found.body, found.trailers) == (True, b"", [("X-Sum", "0")])
        assert wire.response().body == b"hello"


def test_trailers_that_never_come_cut_the_answer(at: Corners) -> None:
    found = at.ask("/trailers_missing", "TE: trailers")
    assert (found.body, found.whole) == (b"hello", False)


def test_trailers_must_be_announced(at: Corners) -> None:
    key = at.key()
    assert at.ask(f"/trailers_unannounced?{key}").body == b"hello again"
    assert at.seen(key) == [["RuntimeError", "Exception"]]


def test_early_hints_come_before_the_answer(at: Corners) -> None:
    found = at.ask("/hints")
    assert [(each.status, each.reason) for each in found.interim] == [(103, "Early Hints")] * 2
    links = [("Link", "</style.css>; rel=preload"), ("Link", "</app.js>; rel=preload")]
    assert [each.fields for each in found.interim] == [links, links[:1]]
    assert found.body == b"hello"
    assert not at.ask("/hints", version="1.0").interim


@pytest.mark.parametrize("path", ["/hints_forged", "/trailers_forged"])
def test_nothing_is_forged(at: Corners, path: str) -> None:
    mark = at.server.mark
    with at.wire(get(path, "TE: trailers")) as wire:
        found = wire.response()
        assert (found.status, found.whole) in ((500, True), (200, False))
        assert wire.rest() == b""
    at.server.wait_log(f"Error handling request GET {path}", since=mark)


# --- applications that are wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/nothing", "/start_only", "/raises", "/raises_started", "/leaves", "/body_only", "/start_twice", "/unknown"),
        *("/no_type", "/kinds?str", "/kinds?none", "/kinds?int", "/cancels_itself"),
        *(f"/status?{status}" for status in ("100", "101", "199", "99", "1000", '"200"', "null", "-1", "200.0")),
        *(f"/wrong?{kind}" for kind in WRONG),
    ],
)
def test_what_is_wrong_before_the_answer_is_a_500(at: Corners, path: str) -> None:
    mark = at.server.mark
    with at.wire(get(path) + get("/")) as wire:
        found = wire.response()
        assert (found.status, found["Connection"], found["X-A"], found["Set-Cookie"]) == (500, "close", "", "")
        assert wire.rest() == b"", "and the next request is not answered"
    if path != "/cancels_itself":
        at.server.wait_log(f"(Error handling request )?GET {re.escape(path)}", since=mark)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nothing", "without an answer: it sent nothing"),
        ("/start_only", "without an answer: it sent a start, and no body"),
        ("/unknown_caught", "without an answer: it sent nothing that begins one; {push}, {debug}"),
        ("/unknown_caught?started", "without an answer: it sent a start, and no body; {push}, {debug}"),
    ],
)
def test_the_log_says_what_is_missing_of_an_answer(at: Corners, path: str, said: str) -> None:
    mark = at.server.mark
    assert at.ask(path).status == 500
    refusals = {
        kind: f"send raised RuntimeError: 'http.response.{kind}' is not a message of an HTTP response"
        for kind in ("push", "debug")
    }
    said = f"GET {path}: the application returned {said.format(**refusals)}"
    at.server.wait_log(re.escape(said) + "$", since=mark)


def test_an_application_may_answer_after_a_head_that_could_not_be_sent(at: Corners) -> None:
    key = at.key()
    assert at.ask(f"/wrong_then_right?{key}").body == b"right"
    assert at.seen(key) == [["InvalidResponse", "ValueError", "Exception"]]


@pytest.mark.parametrize("path", ["/piece_only", "/raises_late", "/raises_sized", "/short", "/short_pieces"])
def test_what_is_wrong_amid_the_answer_cuts_it(at: Corners, path: str) -> None:
    mark = at.server.mark
    with at.wire(get(path) + get("/")) as wire:
        found = wire.response()
        assert (found.status, found.whole) == (200, False)
        assert wire.rest() == b"", "and the next request is not answered"
    at.server.wait_log(f"GET {path}", since=mark)


@pytest.mark.parametrize("path", ["/piece_only", "/raises_late"])
def test_where_the_end_is_the_frame_a_cut_is_a_reset(at: Corners, path: str) -> None:
    with at.wire(get(path, version="1.0")) as wire:
        wire.head()
        with pytest.raises(ConnectionResetError):
            wire.rest()


@pytest.mark.parametrize("path", ["/long", "/long_pieces"])
def test_more_than_was_promised_is_cut(at: Corners, path: str) -> None:
    mark = at.server.mark
    with at.wire() as wire:
        assert wire.send(get(path)).response().body.startswith(b"hel")
        assert wire.send(get("/")).response().body == b"hello"
    at.server.wait_log(f"GET {path}: the application sent more", since=mark)


def test_start_in_a_stream_is_refused_and_the_stream_goes_on(at: Corners) -> None:
    key = at.key()
    assert at.ask(f"/start_again?{key}").body == b"one two"
    assert at.seen(key) == [["RuntimeError", "Exception"]]


def test_a_result_is_complained_of_once(at: Corners) -> None:
    with at.wire() as wire:
        for _ in range(3):
            assert wire.send(get("/returns")).response().body == b"hello"
    at.server.wait_log("The application returned .*list")
    assert at.server.log.count("The application returned") == 1


def test_an_exception_behind_the_answer_is_logged_and_the_connection_goes_on(at: Corners) -> None:
    mark = at.server.mark
    with at.wire() as wire:
        assert wire.send(get("/raises_after")).response().body == b"hello"
        at.server.wait_log("Error handling request GET /raises_after", since=mark)
        assert wire.send(get("/")).response().body == b"hello"


# --- the scope --------------------------------------------------------------------------------------------------------


def test_lifespans_state_is_shared_and_what_a_request_adds_is_its_own(at: Corners) -> None:
    first, second = (json.loads(at.ask("/state").body) for _ in range(2))
    assert first[0] == second[0] == ["shared"]
    assert second[1] == first[1] + 1


def test_extensions_are_new_for_each_request(at: Corners) -> None:
    names = [
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.trailers",
        "http.response.zerocopysend",
    ]
    for _ in range(2):
        assert json.loads(at.ask("/extensions").body) == [names, {"mine": 1}]
