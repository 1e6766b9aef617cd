"""Properties of the engine: the splits do not matter, the two readers agree, and so does an independent peer."""

import itertools
import re
from typing import Any

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdserve.gateway.environ import cgi_name
from sdserve.http import scan
from sdserve.http.connection import State
from sdserve.http.errors import HTTPError
from sdserve.http.limits import Limits
from sdserve.http.names import Names, Naming
from sdserve.http.request import Request, RequestReader
from sdserve.http.response import NAME, VALUE, is_final, is_name, is_value
from tests.unit.http.test_hostile import ROWS, connection, feed

pytestmark = pytest.mark.once

SMALL = Limits(request_line=40, fields=4, field_size=60, head=150, body=100, chunk_line=20)

TOKENS = st.sampled_from(
    [
        *(b"GET", b"POST", b"HEAD", b"OPTIONS", b"FOO", b" ", b"  ", b"/", b"/a?b", b"*", b"http://a/", b"a:443", b"#"),
        *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.9", b"HTTP/2.0", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\t", b":", b": "),
        *(b"Host: a\r\n", b"Host", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Connection: close\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"),
        *(b"5\r\nhello\r\n", b"0\r\n", b"5;a=b\r\n", b"hello", b"A: b\r\n", b" b\r\n", b"\x00", b"\xff", b"g", b"0"),
        *(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]
)
STREAMS = st.one_of(
    st.lists(TOKENS, max_size=25).map(b"".join),
    st.binary(max_size=60),
    st.tuples(st.sampled_from([row[1] for row in ROWS if len(row[1]) < 500]), st.binary(max_size=20)).map(b"".join),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(STREAMS, st.lists(st.integers(0, 4000), max_size=12), st.sampled_from([Limits(), SMALL]))
@settings(max_examples=1500)
def test_any_split_of_any_input_gives_the_same_events(data: bytes, cuts: list[int], limits: Limits) -> None:
    whole = feed(connection(limits), [data])
    assert feed(connection(limits), pieces(data, cuts)) == whole
    assert feed(connection(limits), [data[at : at + 1] for at in range(len(data))]) == whole


def test_a_buffer_of_pipelined_requests_is_not_copied_for_each_of_them() -> None:
    """They are read out of one buffer, which stays the very same object until its last one."""
    conn = connection()
    conn.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" * 100)
    buffer = conn.buffered
    for left in reversed(range(100)):
        assert conn.next_request() is not None and conn.buffered is buffer
        request = conn.next_request()
        assert request is not None and request.length == 2
        assert (conn.read_body(), conn.read_body()) == (b"ab", None)
        assert len(conn.rest) == left * len(buffer) // 100
    assert conn.buffered == b""


def test_a_body_that_came_with_its_head_is_taken_whole_and_nothing_behind_it() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    conn = connection()
    conn.receive(head + b"\r\nhell")
    assert conn.next_request() is not None and conn.whole_body() is None, "some of it is missing"
    assert conn.read_body() == b"hell"
    conn.receive(b"o" + head + b"Connection: close\r\n\r\nworldGET")
    assert (conn.read_body(), conn.read_body()) == (b"o", None)
    assert conn.next_request() is not None and conn.whole_body() == b"world"
    assert conn.state is State.CLOSED and not conn.rest
    chunked = connection()
    chunked.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
    assert chunked.next_request() is not None and chunked.whole_body() is None, "its length is not known before"
    assert (chunked.read_body(), chunked.read_body()) == (b"a", None)


@pytest.mark.parametrize("came", [0, 1, 4])
def test_what_is_missing_of_a_body_can_be_added_to_what_came_with_its_head(came: int) -> None:
    conn, body = connection(), b"hello"
    for close in ("", "Connection: close\r\n"):
        conn.receive(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{close}\r\n".encode() + body[:came])
        assert conn.next_request() is not None and conn.whole_body() is None
        assert conn.missing == 5 - came
        assert conn.last_of_body(body[came:]) == body
        assert conn.buffered == b"" and conn.state is (State.CLOSED if close else State.HEAD)


def test_nobody_knows_what_is_missing_of_a_body_in_chunks() -> None:
    conn = connection()
    conn.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell")
    assert conn.next_request() is not None and conn.missing == 0


def test_what_follows_the_last_request_is_kept_where_that_asks_for_another_protocol() -> None:
    for upgrade, state, rest in ((b"", State.CLOSED, b""), (b"Upgrade: websocket\r\n", State.LAST, b"early frames")):
        conn = connection()
        conn.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\n%b\r\nearly" % upgrade)
        assert conn.next_request() is not None and conn.state is state
        conn.receive(b" frames")
        assert (conn.next_request(), conn.rest) == (None, rest)


REQUEST_LINES = st.sampled_from(
    [b"GET / HTTP/1.1", b"HEAD /a?b HTTP/1.1", b"GET / HTTP/1.0", b"OPTIONS * HTTP/1.1", b"GET /\x80 HTTP/1.1"]
) | st.sampled_from(
    [b"GET http://a/ HTTP/1.1", b"GET /%s HTTP/1.1" % (b"x" * 40), b"FOO / HTTP/1.1", b"GET /  HTTP/1.1"]
)
FIELDS = st.sampled_from(
    [
        *(b"Host: b", b"A: b", b"A : b", b"Cookie: c=1", b"Connection: close", b"Connection: keep-alive"),
        *(b"Content-Length: 0", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Expect: 100-continue"),
        *(
            b"A:c ",
            b"a: \t d",
            b"Host:",
            b"A_B: e",
            b"Content_Length: 3",
            b"Cookie:",
            b"Host : a",
            b"A: b\rc",
            b"A: b\nc",
        ),
        *(b"Upgrade: h2c\r\nConnection: Upgrade", b"X: " + b"y" * 55, b"Z: " + b"y" * 70),
    ]
)
BLOCKS = st.tuples(st.sampled_from([b"\r\nHost: a", b"\r\nHost: b", b""]), st.lists(FIELDS, max_size=3)).map(
    lambda parts: b"\r\n".join([parts[0], *parts[1], b"", b""])
)
# A few lines and a few blocks, so that they meet again.
HEADS = st.tuples(st.lists(REQUEST_LINES, min_size=1, max_size=3), st.lists(BLOCKS, min_size=1, max_size=3)).flatmap(
    lambda parts: st.lists(st.tuples(*map(st.sampled_from, parts)).map(b"".join), min_size=1, max_size=12)
)


def reading(reader: RequestReader, data: bytes) -> Request | int:
    try:
        return reader.read(data, dict)
    except HTTPError as error:
        return error.status


def said(found: Request | int) -> object:
    if isinstance(found, int):
        return found
    line = found.method, found.uri, found.path, found.query, found.minor, found.fields, found.named
    return *line, found.length, found.expect, found.host, found.upgrade, found.keep_alive


@given(HEADS, st.sampled_from([Limits(), SMALL, Limits(head=70)]))
@settings(max_examples=800)
def test_what_a_reader_remembers_changes_nothing(heads: list[bytes], limits: Limits) -> None:
    reader = RequestReader(limits)
    found = [reading(reader, data) for data in heads * 2]  # looked at when all have been read
    assert [said(each) for each in found] == [said(reading(RequestReader(limits), data)) for data in heads * 2]


def test_a_reader_remembers_a_bounded_part_of_what_it_read() -> None:
    reader = RequestReader(Limits())
    for number in range(5000):
        reader.read(b"GET /%d HTTP/1.1\r\nHost: a\r\nCookie: %d\r\n\r\n" % (number, number))
        for _ in range(2):
            reader.read(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    assert 0 < len(reader._heads) <= 64
    assert reader._names.known == {"Host": "host", "Cookie": "cookie"}


def test_what_is_remembered_is_bounded_in_bytes_and_makes_room_again() -> None:
    reader = RequestReader(Limits())
    for number in range(2500):
        long = b"a" * 3000
        reader.read(b"GET / HTTP/1.1\r\nHost: %d.%b\r\n%b%d: x\r\n\r\n" % (number, long, long, number))
        reader.read(b"GET / HTTP/1.1\r\nHost: a%d\r\nX%d: x\r\n\r\n" % (number, number))
    held = [*reader._hosts, *reader._names.known]
    assert sum(map(len, held)) < 600_000
    assert "a2499" in reader._hosts and "X2499" in reader._names.known
    with pytest.raises(HTTPError):  # what decides is never forgotten
        reader.read(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")


@given(HEADS, st.sampled_from([Limits(), SMALL]), st.sampled_from([str.lower, cgi_name]))
@settings(max_examples=500)
def test_fields_taken_in_bulk_are_those_of_the_exact_reader(heads: list[bytes], limits: Limits, naming: Naming) -> None:
    reader = RequestReader(limits, Names(naming))
    for data in heads * 2:
        found = reading(reader, data)
        if isinstance(found, Request):
            _, fields = scan.verdict(data, limits)
            named: dict[str, Any] = {}
            Names(naming).gather(fields, named)
            assert (found.fields, found.named) == (fields, named)


def test_a_field_that_came_more_than_once_is_one_list() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\nA:1\r\nCookie: b=1\r\na: \t2 \t\r\ncookie:c=2\r\nB:\r\nX_Y: z\r\n\r\n"
    reader = RequestReader(Limits())
    for _ in range(2):
        named = reader.read(data, lambda: {"kept": 1}).named
        assert named == {"kept": 1, "host": "a", "a": "1,2", "cookie": "b=1; c=2", "b": "", "x_y": "z"}


LINES = st.one_of(
    st.binary(max_size=12),
    st.tuples(st.from_regex(rb"[A-Za-z-]{1,8}", fullmatch=True), st.binary(max_size=8)).map(b": ".join),
    st.tuples(st.from_regex(rb"[A-Za-z-]{1,8}:[ \t]{0,2}[ -~]{0,12}[ \t]{0,2}", fullmatch=True)).map(b"".join),
)


@given(st.lists(LINES, max_size=5))
@settings(max_examples=400)
def test_the_exact_reader_and_httptools_agree_about_every_field(lines: list[bytes]) -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    if b"\r\n\r\n" in data[:-4] or re.search(rb"(?i)\n(content-|transfer-|upgrade|connection|proxy-)", data):
        return
    found: list[tuple[bytes, bytes]] = []

    class Callbacks:
        def on_header(self, name: bytes, value: bytes) -> None:
            found.append((name, value.strip(b" \t")))

    try:
        (_, fields), exact = scan.verdict(data, Limits()), True
    except HTTPError:
        exact = False
    try:
        httptools.HttpRequestParser(Callbacks()).feed_data(data)
        fast = True
    except httptools.HttpParserError:
        fast = False
    assert exact == fast
    if exact:
        assert fields == found


@given(st.binary(min_size=1, max_size=6), st.sampled_from([b"/", b"/a?b", b"http://a/", b"/#"]))
@settings(max_examples=500)
def test_the_exact_reader_and_httptools_agree_about_every_target(data: bytes, start: bytes) -> None:
    head = b"GET " + start + data + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    if data.find(b"\r\n") >= 0:
        return
    try:
        (_, target, _), _ = scan.verdict(head, Limits())
    except HTTPError:
        target = b""
    try:
        assert RequestReader(Limits()).read(head).uri.encode() == target
    except HTTPError:
        assert not target or target.startswith(b"http:")


def by_h11(data: bytes) -> tuple[list[object], bool]:
    """What h11 makes of it: (events, whether it refused)."""
    conn = h11.Connection(h11.SERVER)
    conn.receive_data(data)
    out: list[object] = []
    try:
        while True:
            event = conn.next_event()
            if isinstance(event, h11.Request):
                out.append((event.method.decode(), event.target.decode(), event.headers.raw_items()))
            elif isinstance(event, h11.Data):
                if isinstance(out[-1], bytes):
                    out[-1] += bytes(event.data)
                else:
                    out.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                conn.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
                conn.send(h11.EndOfMessage())
                if conn.our_state is not h11.DONE:
                    return out, False
                conn.start_next_cycle()
            else:
                return out, False
    except h11.RemoteProtocolError:
        return out, True


@given(st.lists(TOKENS, max_size=25).map(b"".join))
@settings(max_examples=1500)
def test_what_is_accepted_is_read_as_h11_reads_it(data: bytes) -> None:
    ours, status = feed(connection(), [data])
    theirs, refused = by_h11(data)
    simple = [event if isinstance(event, bytes) else event[:3] for event in ours if event[0] != "end"]
    # h11 is laxer here and there, and stricter about targets; where both accept, requests and bodies are the same.
    if status is None and not refused:
        assert simple == theirs
    else:
        shared = min(len(simple), len(theirs))
        for mine, other in list(zip(simple, theirs, strict=False))[: shared - 1]:
            assert mine == other


@pytest.mark.parametrize("method", ["GET", "POST", "PURGE", "M-SEARCH", "BREW"])
def test_a_request_written_by_h11_is_read_back(method: str) -> None:
    peer = h11.Connection(h11.CLIENT)
    headers = [("Host", "example.org"), ("Transfer-Encoding", "chunked"), ("X-A", "b"), ("X-A", "c")]
    data = peer.send(h11.Request(method=method, target="/a?b", headers=headers)) or b""
    data += peer.send(h11.Data(data=b"x" * 1000)) or b""
    data += peer.send(h11.EndOfMessage(headers=[("X-Sum", "1")])) or b""
    out, status = feed(connection(), [data])
    assert status is None
    fields = [(name.encode(), value.encode()) for name, value in headers]
    assert out == [(method, "/a?b", fields, -1, True), b"x" * 1000, ("end", [(b"X-Sum", b"1")])]


def test_a_request_does_not_change_when_others_are_read() -> None:
    """Each has its own fields, and its own mapping."""
    reader = RequestReader(Limits())
    known = b" HTTP/1.1\r\nHost: a\r\n\r\n"
    reader.read(b"GET /known" + known)
    post = reader.read(b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 9\r\n\r\n")
    reader.read(b"GET /new" + known)
    assert post.fields == [(b"Host", b"b"), (b"Content-Length", b"9")]

    first = reader.read(b"GET /one HTTP/1.1\r\nHost: c\r\n\r\n")
    reader.read(b"GET /newer" + known)
    again = reader.read(b"GET /two HTTP/1.1\r\nHost: c\r\n\r\n")
    assert first.fields == again.fields == [(b"Host", b"c")]


def test_a_field_that_comes_very_often_is_one_list() -> None:
    """And each value is copied once: joined one by one, this would take seconds."""
    values = [b"%08d" % number for number in range(32768)]
    into: dict[str, Any] = {}
    repeated = Names().gather([(b"A", value) for value in values] + [(b"Cookie", b"b=1"), (b"cookie", b"c=2")], into)
    assert repeated == {"a", "cookie"}
    assert into == {"a": b",".join(values).decode(), "cookie": "b=1; c=2"}


NEARLY = st.text(st.sampled_from("09a-.:_ \t\n\x7f\x80\xb2\xff\u0660\uff12%["), max_size=8)


@given(
    st.one_of(NEARLY, st.text(max_size=8)), st.sampled_from(["", "200", "299 ", "100", "2\xb20 ", "\uff12\uff10\uff10"])
)
@settings(max_examples=500)
def test_what_is_judged_at_a_glance_is_judged_as_the_grammar_does(text: str, code: str) -> None:
    assert is_name(text) == bool(re.fullmatch(NAME, text))
    assert is_value(text) == bool(re.fullmatch(VALUE, text))
    assert is_final(code + text) == bool(re.fullmatch(f"[2-9][0-9]{{2}}(?: {VALUE})?", code + text))
    host = text.encode()
    found = re.fullmatch(scan.HOST, host)
    if found is None or found["ipv6"] is None:
        assert scan.is_host(host) == (found is not None and int(found["port"] or 0) <= 65535)
