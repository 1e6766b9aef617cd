"""Bad input and its answer: each row of the table is refused with the right status, however it is split."""

from typing import Any

import pytest

from sdserve.errors import BootError
from sdserve.http.connection import Connection, State
from sdserve.http.errors import HTTPError
from sdserve.http.limits import Limits
from sdserve.http.request import Request, RequestReader
from sdserve.http.strict import demand_strict

LIMITS = Limits(body=1 << 20)

GET = b"GET / HTTP/1.1\r\n"
HOST = b"Host: a\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def head(*lines: bytes) -> bytes:
    return GET + b"".join(line + b"\r\n" for line in (b"Host: a", *lines)) + b"\r\n"


def post(*lines: bytes) -> bytes:
    return POST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


ROWS: list[tuple[str, bytes, set[int]]] = [
    ("no host", GET + b"\r\n", {400}),
    ("two hosts", head(b"Host: a"), {400}),
    ("two different hosts", head(b"Host: b"), {400}),
    ("host with a space", GET + b"Host: a b\r\n\r\n", {400}),
    *(
        (f"host {host!r}", GET + b"Host: " + host + b"\r\n\r\n", {400})
        for host in (b"[:]", b"[::1", b"::1", b"[::1]x", b"[1.2.3.4]", b"h:99999", b"h:65536", b"h:x", b":80", b"%zz")
    ),
    ("host with userinfo", GET + b"Host: u@a\r\n\r\n", {400}),
    ("host with a path", GET + b"Host: a/b\r\n\r\n", {400}),
    ("length with a sign", post(b"Content-Length: +5"), {400}),
    ("negative length", post(b"Content-Length: -1"), {400}),
    ("length with underscore", post(b"Content-Length: 0_1"), {400}),
    ("hexadecimal length", post(b"Content-Length: 0x5"), {400}),
    ("two numbers in a length", post(b"Content-Length: 5 5"), {400}),
    ("empty length", post(b"Content-Length:"), {400}),
    ("list of lengths", post(b"Content-Length: 5, 5"), {400}),
    ("length twice", post(b"Content-Length: 5", b"Content-Length: 5"), {400}),
    ("two lengths", post(b"Content-Length: 5", b"Content-Length: 6"), {400}),
    ("length of 30 digits", post(b"Content-Length: " + b"1" * 30), {400, 413}),
    ("length of 5000 digits", post(b"Content-Length: " + b"1" * 5000), {400, 413}),
    ("length over the limit", post(b"Content-Length: 1048577"), {413}),
    ("length and chunked", post(b"Content-Length: 5", b"Transfer-Encoding: chunked"), {400}),
    ("chunked and length", post(b"Transfer-Encoding: chunked", b"Content-Length: 5"), {400}),
    ("xchunked", post(b"Transfer-Encoding: xchunked"), {400, 501}),
    ("chunked, identity", post(b"Transfer-Encoding: chunked, identity"), {400, 501}),
    ("chunked, chunked", post(b"Transfer-Encoding: chunked, chunked"), {400, 501}),
    ("chunked twice", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), {400, 501}),
    (",chunked", post(b"Transfer-Encoding: ,chunked"), {400, 501}),
    ("empty transfer-encoding", post(b"Transfer-Encoding:"), {400, 501}),
    ("identity", post(b"Transfer-Encoding: identity"), {400, 501}),
    ("VT before chunked", post(b"Transfer-Encoding: \x0bchunked"), {400, 501}),
    ("Kelvin sign", post("Transfer-Encoding: chun\u212aed".encode()), {400, 501}),
    ("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked"), {501}),
    ("chunked in 1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", {400}),
    ("chunk size 0x5", CHUNKED + b"0x5\r\n", {400}),
    ("chunk size 0_5", CHUNKED + b"0_5\r\n", {400}),
    ("chunk size -5", CHUNKED + b"-5\r\n", {400}),
    ("chunk size +5", CHUNKED + b"+5\r\n", {400}),
    ("empty chunk size", CHUNKED + b"\r\n", {400}),
    ("blank before a chunk size", CHUNKED + b" 0\r\n\r\n", {400}),
    ("blank after a chunk size", CHUNKED + b"0 \r\n\r\n", {400}),
    ("chunk size of 17 digits", CHUNKED + b"0" * 16 + b"5\r\nhello\r\n", {400, 413}),
    ("huge chunk size", CHUNKED + b"f" * 16 + b"\r\n", {400, 413}),
    ("chunks over the limit", CHUNKED + b"100001\r\n", {413}),
    ("wrong bytes after chunk data", CHUNKED + b"5\r\nhelloXX0\r\n\r\n", {400}),
    ("LF-only chunk line", CHUNKED + b"5\nhello\r\n0\r\n\r\n", {400}),
    ("LF-only chunk end", CHUNKED + b"5\r\nhello\n0\r\n\r\n", {400}),
    ("bare LF in the target", b"GET /\na:b HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("bare CR in the target", b"GET /\ra:b HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("bare LF after a method", b"GET \n HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("a second line in an absolute target", b"GET http://a/\nb:c HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("bare CR in a chunk extension", CHUNKED + b"5;a=\rb\r\nhello\r\n0\r\n\r\n", {400}),
    ("bare LF in a chunk extension", CHUNKED + b"5;a=\nb\r\nhello\r\n0\r\n\r\n", {400}),
    *(
        (f"chunk extension {text!r}", CHUNKED + b"5" + text + b"\r\nhello\r\n0\r\n\r\n", {400})
        for text in (
            b";",
            b";;a",
            b";=b",
            b";a=",
            b';a="b',
            b';a="b"c',
            b";a b",
            b";a ",
            b' ; a = "\\"',
            b";a=\xe9",
            b";a\x7f",
        )
    ),
    ("64 KiB chunk extension", CHUNKED + b"5;" + b"a" * 65536 + b"\r\nhello\r\n", {400}),
    ("Content-Length as a trailer", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", {400}),
    ("Transfer-Encoding as a trailer", CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n", {400}),
    ("Host as a trailer", CHUNKED + b"0\r\nHost: b\r\n\r\n", {400}),
    ("malformed trailer", CHUNKED + b"0\r\nA : b\r\n\r\n", {400}),
    ("folded trailer", CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", {400}),
    ("LF after the last chunk", CHUNKED + b"0\r\n\n", {400}),
    ("blank before the colon", head(b"Name : v"), {400}),
    ("folded header", head(b"Name: a", b" b"), {400}),
    ("folded header, TAB", head(b"Name: a", b"\tb"), {400}),
    ("NUL in a value", head(b"Name: a\x00b"), {400}),
    ("BEL in a value", head(b"Name: a\x07b"), {400}),
    ("DEL in a value", head(b"Name: a\x7fb"), {400}),
    ("bare CR in a value", head(b"Name: a\rb"), {400}),
    ("LF in a value", head(b"Name: a\nb: c"), {400}),
    ("LF-only request", b"GET / HTTP/1.1\nHost: a\n\n", {400}),
    ("LF-only header", GET + b"Host: a\n\r\n", {400}),
    ("LF-only end", GET + b"Host: a\r\n\n", {400}),
    ("empty name", head(b": v"), {400}),
    ("no colon", head(b"Name"), {400}),
    ("non-ASCII name", head(b"N\xe4me: v"), {400}),
    ("space before the first header", GET + b" Host: a\r\n\r\n", {400}),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", {505}),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    ("http/1.1", b"GET / http/1.1\r\nHost: a\r\n\r\n", {400}),
    ("HTTP/1.10", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", {400}),
    ("HTTP/0.9", b"GET /\r\n", {400}),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("two spaces before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("TAB in the request line", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("LF in the request line", b"GET /\n HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("0xff in the target", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("NUL in the target", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("blank at the end of the request line", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", {400}),
    ("GET *", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("GET authority", b"GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("GET foo", b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", {405, 501}),
    ("no host in an absolute target", b"GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("absolute target without Host", b"GET http://a/ HTTP/1.1\r\n\r\n", {400}),
    ("port too great in the target", b"GET http://a:99999/ HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("fragment of an absolute target", b"GET http://a/b#c HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("fragment, another method", b"BREW /#b HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    ("64 KiB target", b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {414}),
    ("1 MiB header", head(b"Name: " + b"a" * (1 << 20)), {431}),
    ("1,000 headers", head(*[b"A%d: b" % n for n in range(1000)]), {431}),
    ("64 KiB of headers", head(*[b"A%d: %b" % (n, b"b" * 8000) for n in range(10)]), {431}),
    ("Expect: foo", post(b"Expect: foo", b"Content-Length: 5"), {417}),
    ("two content types", post(b"Content-Type: a/b", b"Content-Type: c/d", b"Content-Length: 0"), {400}),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
    ("an empty line, then a lone CR", b"\r\n\ra", {400}),
    ("two empty lines first", b"\r\n\r\n" + head(), {400}),
]

GOOD = head(b"Accept: */*")


def feed(conn: Connection, pieces: list[bytes]) -> tuple[list[Any], int | None]:
    """(what came out, the status of the error that ended it)."""
    out: list[Any] = []
    try:
        for piece in pieces:
            conn.receive(piece)
            while True:
                if conn.state is State.BODY:
                    data = conn.read_body()
                    if data is None:
                        out.append(("end", conn.trailers))
                    elif data:
                        if isinstance(out[-1], bytes):
                            out[-1] += data
                        else:
                            out.append(data)
                    else:
                        break
                else:
                    request = conn.next_request()
                    if request is None:
                        break
                    out.append((request.method, request.uri, request.fields, request.length, request.keep_alive))
                    if request.length and (whole := conn.whole_body()) is not None:
                        out += [whole, ("end", conn.trailers)]
    except HTTPError as error:
        return out, error.status
    return out, None


def connection(limits: Limits = LIMITS) -> Connection:
    return Connection(RequestReader(limits), limits)


@pytest.mark.parametrize(("data", "statuses"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_row_is_refused_and_nothing_behind_it_is_parsed(data: bytes, statuses: set[int]) -> None:
    conn = connection()
    out, status = feed(conn, [data + GOOD])
    assert status in statuses
    assert conn.state is State.CLOSED
    conn.receive(GOOD)
    assert conn.next_request() is None

    behind = connection()
    out_behind, status_behind = feed(behind, [GOOD + data + GOOD])
    assert status_behind == status
    assert len(out_behind) == len(out) + 1


@pytest.mark.parametrize(("data", "statuses"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_row_is_refused_however_it_is_split(data: bytes, statuses: set[int]) -> None:
    whole = feed(connection(), [data])
    assert whole[1] in statuses
    step = max(1, len(data) // 300)
    for at in range(0, len(data), step):
        assert feed(connection(), [data[:at], data[at:]]) == whole, at
    if len(data) < 10000:
        assert feed(connection(), [data[at : at + 1] for at in range(len(data))]) == whole


def test_a_body_that_ends_after_the_last_chunks_line_is_not_complete() -> None:
    conn = connection()
    out, status = feed(conn, [CHUNKED + b"5\r\nhello\r\n0\r\n"])
    assert status is None
    assert out[-1] == b"hello"
    assert conn.state is State.BODY


@pytest.mark.parametrize("data", [b"\x16", b"\x00", b"GET\x00", b"GET / HTTP/1.1\n", b"G\r"])
def test_what_can_never_become_a_request_is_refused_at_once(data: bytes) -> None:
    assert feed(connection(), [data])[1] == 400


def test_a_bad_trailer_counts_once() -> None:
    limits = Limits(head=150)
    start, trailer = CHUNKED + b"5\r\nhello\r\n0\r\n", b"A " + b"b" * 78 + b"\r\n"
    assert feed(connection(limits), [start, trailer])[1] == 400
    assert feed(connection(limits), [start + trailer])[1] == 400


@pytest.mark.parametrize("extension", [b";a", b";a=b;c", b" ; a = b", b'\t;a="b; \\" \xe9";c', b";a;b=1"])
def test_lawful_chunk_extensions_are_passed_over(extension: bytes) -> None:
    out, status = feed(connection(), [CHUNKED + b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n" + GOOD])
    assert status is None
    assert out[1:3] == [b"hello", ("end", [])] and len(out) == 4


def test_trailers_that_may_not_be_are_dropped_and_the_others_stay() -> None:
    fields = b"".join(b"%b: x\r\n" % name for name in (b"Content-Type", b"X-Sum", b"Cookie", b"Authorization", b"TE"))
    out, status = feed(connection(), [CHUNKED + b"0\r\n" + fields + b"\r\n" + GOOD])
    assert status is None
    assert out[1] == ("end", [(b"X-Sum", b"x")]) and len(out) == 3


@pytest.mark.parametrize("value", [b"chunked", b"\tchunked\t", b" chunked \t ", b"CHUNKED\t"])
def test_blanks_around_a_coding_are_spaces_and_tabs(value: bytes) -> None:
    out, status = feed(connection(), [post(b"Transfer-Encoding:" + value) + b"5\r\nhello\r\n0\r\n\r\n"])
    assert status is None
    assert out[1:] == [b"hello", ("end", [])]


def one(data: bytes) -> Request:
    """The same request, read for the first time and from memory."""
    reader = RequestReader(LIMITS)
    first, second = reader.read(data), reader.read(data)
    assert (first.host, first.path, first.query, first.keep_alive) == (
        *(second.host, second.path, second.query, second.keep_alive),
    )
    return first


def test_the_authority_of_an_absolute_target_stands_for_host() -> None:
    for target, host in (
        (b"http://b/x?y", b"a"),
        (b"http://B:80/x?y", b"b"),
        (b"https://[::1]:1/x?y", b""),
        (b"HTTP://b?y", b"a:1"),
    ):
        found = one(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert found.host == target.partition(b"//")[2].partition(b"/")[0].partition(b"?")[0].decode()
        assert (found.path, found.query) == ("/x" if b"/x" in target else "/", "y")


def test_an_empty_host_is_lawful_and_none_is_not() -> None:
    reader = RequestReader(LIMITS)
    for _ in range(2):
        assert reader.read(GET + b"Host:\r\n\r\n").host == ""
        with pytest.raises(HTTPError, match="no Host"):
            reader.read(GET + b"\r\n")


@pytest.mark.parametrize(
    "host", [b"a", b"a:", b"a:0", b"a:65535", b"[::1]", b"[::ffff:1.2.3.4]:80", b"1.2.3.4:80", b"a%20b", b"a_b"]
)
def test_lawful_hosts(host: bytes) -> None:
    assert one(GET + b"Host: " + host + b"\r\n\r\n").host == host.decode()


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ((b"keep-alive",), True),
        ((b"keep-alive", b"close"), False),
        ((b"close", b"keep-alive"), False),
        ((b"close, keep-alive",), False),
        ((b"x", b"Keep-Alive"), True),
        ((b"close", b"x", b"keep-alive"), False),
        ((), False),
    ],
)
def test_in_1_0_a_close_anywhere_wins(lines: tuple[bytes, ...], kept: bool) -> None:
    fields = b"".join(b"Connection: " + line + b"\r\n" for line in lines)
    assert one(b"GET / HTTP/1.0\r\n" + fields + b"\r\n").keep_alive is kept


def test_an_endless_line_is_refused_at_its_limit() -> None:
    conn = connection()
    assert feed(conn, [b"GET /" + b"a" * (LIMITS.request_line - 5)]) == ([], None)
    assert feed(conn, [b"a"])[1] == 414


class Lax:
    """A parser that minds nothing, as http_parser does not mind a blank before a colon."""

    def __init__(self, protocol: object) -> None:
        pass

    def feed_data(self, data: bytes) -> None:
        pass


def test_a_lax_httptools_is_refused() -> None:
    demand_strict()
    with pytest.raises(BootError, match="http_parser"):
        demand_strict(Lax)
