"""The same requests to this server and to uvicorn, which serve the same application: the same answers, scopes, ends.

What differs on purpose stands in DIFFERENCES, with its reason; it must differ, or the line is out of date.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.corners import Corners, corners
from tests.support.server import APPS, free_port
from tests.support.waiting import eventually
from tests.support.wire import Address, Wire, exchange, get

# Of an answer: the two sign, frame and say how it goes on in words of their own; what comes of it is compared.
NOT_COMPARED = ("date", "server", "content-length", "transfer-encoding", "connection")
# Of a scope: ports and versions differ, and which extensions there are.
NOT_OF_SCOPES = ("client", "server", "asgi", "extensions")

MARKER = get("/", "Connection: close")
LENGTH = "POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n"
CHUNKED = "POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(path: str, body: bytes) -> bytes:
    return CHUNKED.format(path).encode() + body


FIELDS = {
    "none": (),
    "many": tuple(f"X-Field-{number}: {number}" for number in range(50)),
    "repeated": ("Accept: a", "X-A: 1", "Accept: b", "x-a: 2", "Cookie: a=1", "Cookie: b=2"),
    "blanks": ("X-A:", "X-B:   ", "X-C: \t c \t ", "X-D: a  b"),
    "latin": ("X-A: é",),
    "quoted": ('X-A: "a, b", c',),
    "case": ("ACCEPT: A", "x-Lower-UPPER: v"),
    "proxied, and not believed": ("X-Request-Id: 1", "Forwarded: for=1.2.3.4"),
}
TARGETS: tuple[str, ...] = (
    "/scope",
    "/scope?",
    "/scope?a=%20b&c=d+e",
    "/scope/a%20b",
    "/scope/%C3%A9",
    "/scope/a%2Fb",
    "/scope//a/../b",
)
TARGETS += ("/%73cope", "/scope/%ff", "/scope?%ff=?", "/scope;p=1", "http://b:81/scope?x", "/scope/a%", "/scope/a%zz")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW")
PAGES: tuple[str, ...] = (
    "/",
    "/stream",
    "/bare",
    "/lists",
    "/names",
    "/no_content",
    "/not_modified",
    "/closes",
    "/kinds?bytearray",
)
PAGES += ("/start_again", "/after_last", "/changes", "/at_first", "/tasks", "/context", "/returns", "/raises_after")
PAGES += ("/nothing", "/start_only", "/piece_only", "/body_only", "/start_twice", "/unknown", "/raises")
PAGES += ("/raises_started", "/raises_late", "/raises_sized", "/long", "/long_pieces", "/short", "/short_pieces")
PAGES += ("/status?100", '/status?"200"', "/status?299", "/status?599", "/wrong?crlf", "/wrong?str_name", "/wrong?nul")
PAGES += ("/kinds?str", "/hints", "/trailers", "/path?here")

# Each case: what is sent, and the methods of its requests.
CASES: dict[str, tuple[bytes, list[str]]] = {
    **{f"fields: {name}": (get("/scope", *lines), ["GET"]) for name, lines in FIELDS.items()},
    **{f"target: {target}": (get(target), ["GET"]) for target in TARGETS},
    **{f"method: {method}": (get("/scope", method=method), [method]) for method in METHODS},
    **{f"page: {page}": (get(page), ["GET"]) for page in PAGES},
    **{f"HEAD: {page}": (get(page, method="HEAD"), ["HEAD"]) for page in ("/", "/stream", "/names", "/no_content")},
    **{f"1.0: {page}": (get(page, version="1.0"), ["GET"]) for page in ("/", "/scope", "/stream", "/names", "/raises")},
    "1.0, kept": (get("/", "Connection: keep-alive", version="1.0"), ["GET"]),
    "1.0, kept, stream": (get("/stream", "Connection: keep-alive", version="1.0"), ["GET"]),
    "closed": (get("/scope", "Connection: close"), ["GET"]),
    "kept": (get("/", "Connection: keep-alive"), ["GET"]),
    "body": (get("/echo", method="POST", body=b"hello"), ["POST"]),
    "body, its scope": (get("/scope", method="POST", body=b"hello"), ["POST"]),
    "body of GET": (get("/echo", body=b"hello"), ["GET"]),
    "body, large": (get("/echo", method="POST", body=b"0123456789" * 50_000), ["POST"]),
    "no body": (get("/messages", method="POST"), ["POST"]),
    "body, messages": (get("/messages", method="POST", body=b"hello"), ["POST"]),
    "empty body": (get("/messages", "Content-Length: 0", method="POST"), ["POST"]),
    "chunks": (chunked("/echo", b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"), ["POST"]),
    "chunks, messages": (chunked("/messages", b"5\r\nhello\r\n0\r\n\r\n"), ["POST"]),
    "chunks, scope": (chunked("/scope", b"0\r\n\r\n"), ["POST"]),
    "chunks, trailers": (chunked("/echo", b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), ["POST"]),
    "chunks, bad": (chunked("/echo", b"5\r\nhello,,0\r\n\r\n"), ["POST"]),
    "body unread": (get("/ignore", method="POST", body=b"hello"), ["POST"]),
    "expectation": (get("/echo", "Expect: 100-continue", method="POST", body=b"hello"), ["POST"]),
    "pipelined": (get("/") + get("/stream") + get("/echo", method="POST", body=b"x") + get("/no_content"), ["GET"] * 4),
    "pipelined behind a failure": (get("/raises") + get("/"), ["GET"] * 2),
    "malformed": (b"GET / HTTP/1.1\r\nHost: a\r\nno field\r\n\r\n", ["GET"]),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", ["GET"]),
    "both lengths": (get("/echo", "Transfer-Encoding: chunked", method="POST", body=b"0\r\n\r\n"), ["POST"]),
    "two lengths": (get("/echo", "Content-Length: 4", method="POST", body=b"hello"), ["POST"]),
    "HTTP/2.0": (get("/", version="2.0"), ["GET"]),
}

CUT = "uvicorn answers 200, and closes where the rest would be"
NO_ANSWER = "uvicorn closes without an answer"
KEPT = "uvicorn closes the connection"
DIFFERENCES = {
    "fields: blanks": "uvicorn keeps blanks behind a value (RFC 9110 section 5.5: they are no part of it)",
    "target: http://b:81/scope?x": "RFC 9112 section 3.2.2: the target's host counts, whatever Host says",
    "method: BREW": "any token is a method; uvicorn's parser has a list",
    "no host": "RFC 9112 section 3.2: 400 without Host",
    "HTTP/2.0": "505; uvicorn serves it",
    "HEAD: /stream": "the connection ends; behind a stream without an end uvicorn never answers the next request",
    "1.0, kept": KEPT,
    "expectation": "who has sent the body is not asked for it",
    "pipelined": KEPT + " behind a 204",
    "page: /no_content": KEPT + ", having sent a body for a 204",
    "page: /not_modified": KEPT + ", having sent a body for a 304",
    "page: /after_last": "what follows the last message is ignored, as the specification says; uvicorn raises",
    "page: /returns": KEPT,
    "page: /raises_after": KEPT,
    "page: /start_only": CUT,
    "page: /start_twice": CUT,
    "page: /raises_started": CUT,
    "page: /kinds?str": CUT,
    "page: /long": "too much is cut, and the answer stands; uvicorn sends nothing of it",
    "page: /long_pieces": "too much is cut, and the answer stands; uvicorn ends it at the message that is too long",
    "page: /status?100": "1xx is not the application's to say; uvicorn sends it with a body",
    'page: /status?"200"': NO_ANSWER,
    "page: /wrong?crlf": NO_ANSWER,
    "page: /wrong?str_name": NO_ANSWER,
    "page: /wrong?nul": NO_ANSWER,
    "page: /hints": "an extension that uvicorn has not",
    "page: /trailers": "an extension that uvicorn has not",
    "page: /path?here": "an extension that uvicorn has not: it is taken, though not offered by default",
}


@pytest.fixture(scope="module")
def ours() -> Iterator[Corners]:
    with corners("uvloop") as served:
        yield served


@pytest.fixture(scope="module")
def theirs(ours: Corners) -> Iterator[Corners]:
    address = ("127.0.0.1", free_port())
    command = [sys.executable, "-m", "uvicorn", "corners:application", "--port", str(address[1])]
    quiet = ["--no-access-log", "--log-level", "critical", "--loop", "uvloop", "--http", "httptools", "--ws", "none"]
    with subprocess.Popen([*command, *quiet], cwd=APPS, stderr=subprocess.DEVNULL) as process:
        served = Corners(ours.server, address)
        try:
            eventually(lambda: is_up(address), "uvicorn serves")
            yield served
        finally:
            process.kill()


def is_up(address: Address) -> bool:
    try:
        return exchange(address, get("/")).status == 200
    except OSError:
        return False


def transcript(address: Address, data: bytes, methods: list[str]) -> list[Any]:
    """What is answered, the marker behind it included, as far as it is compared; how it ends."""
    found: list[Any] = []
    with Wire(address, data + MARKER) as wire:
        wire.sock.settimeout(20)
        try:
            for method in [*methods, "GET"]:
                response = wire.response(method)
                fields = [(name.lower(), value) for name, value in response.fields if name.lower() not in NOT_COMPARED]
                interim = [each.status for each in response.interim]
                body = response.body if response.status < 400 else b""  # refusals are in words of their own
                found.append((response.status, fields if body else [], plain(body), response.whole, interim))
            found.append(wire.rest())
        except EOFError:
            found.append("closed")
        except ConnectionResetError:
            found.append("reset")
        except TimeoutError:
            found.append("silent")
        except (AssertionError, ValueError):
            found.append("no answer of HTTP")
    return found


def plain(body: bytes) -> Any:
    """A body, or the scope that it tells, as far as that is compared."""
    if not body.startswith(b'{"type"'):
        return body
    scope = json.loads(body)
    return {key: value for key, value in scope.items() if key not in NOT_OF_SCOPES}


@pytest.mark.parametrize("case", CASES)
def test_the_same_request_has_the_same_answer(ours: Corners, theirs: Corners, case: str) -> None:
    data, methods = CASES[case]
    mine, other = (transcript(each.address, data, methods) for each in (ours, theirs))
    if case in DIFFERENCES:
        assert mine != other, "it does not differ any more"
    else:
        assert mine == other
    ours.is_well()


def noted(at: Corners, page: str, how: str, count: int) -> list[Any]:
    """What a call notes whose client leaves once it has begun."""
    key = at.key()
    wire = Wire(at.address, get(f"/{page}?{key}"))
    if page == "waits":
        at.wait_seen(key, 1)
    else:
        wire.head()
    wire.close() if how == "close" else wire.reset()
    at.is_well()
    at.let(key)
    return at.wait_seen(key, count)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(("page", "count"), [("waits", 2), ("after_body", 3), ("behind", 4)])
def test_an_end_is_told_alike(ours: Corners, theirs: Corners, page: str, count: int, how: str) -> None:
    assert noted(ours, page, how, count) == noted(theirs, page, how, count)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_send_raises_behind_the_end_here_only(ours: Corners, theirs: Corners, how: str) -> None:
    """As the specification wants it from 2.4 on; uvicorn says 2.3, and takes what nobody will read."""
    (mine, raised), (other, taken) = (noted(each, "listens", how, 2) for each in (ours, theirs))
    assert mine == other == {"type": "http.disconnect"}
    assert "OSError" in raised and taken is None


def test_scopes_have_the_same_keys(ours: Corners, theirs: Corners) -> None:
    mine, other = (json.loads(each.ask("/scope").body) for each in (ours, theirs))
    assert set(mine) - set(other) == {"extensions"}
    assert set(other) <= set(mine)
    assert (mine["asgi"]["version"], mine["client"][0], mine["server"][0]) == ("3.0", "127.0.0.1", "127.0.0.1")
    assert (mine["asgi"]["version"], type(mine["server"][1])) == (other["asgi"]["version"], type(other["server"][1]))
