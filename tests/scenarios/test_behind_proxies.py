"""Behind nginx and haproxy: whatever a client sends, proxy and server agree about where requests begin and end.

Each candidate for request smuggling is sent to a real proxy that keeps its connections to sdserve, with another
request behind it. The application writes down what it sees, the proxy logs what it forwarded, and both must be the
same: method, target, and the length of the body where the proxy knows it. A request of which the proxy knows nothing
would be smuggled. The proxies run as plain processes with a configuration of their own and listen on Unix sockets.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server, answer, connector
from tests.support.waiting import eventually
from tests.unit.http.test_hostile import CHUNKED, GET, HOST, POST, ROWS, head, post

pytestmark = pytest.mark.once

Seen = list[tuple[str, str, int | None]]

HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: a\r\nX: "
MARKER = b"GET /marker HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
END = b"0\r\n\r\n"

# Each says "chunked" in a way that one of two parsers might miss; beside a length, they would disagree.
CHUNKED_PERHAPS = [
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked"),
    *(b"Transfer-Encoding:chunked", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked "),
    *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunkedx", b"Transfer-Encoding: 'chunked'"),
    *(b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: \x0cchunked"),
    *(b"Transfer-Encoding: chunked\x00", b"Transfer-Encoding: chunked\r", b"Transfer-Encoding: cHuNkEd"),
    *(b"Transfer-Encoding: identity", b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: chunked, identity"),
    *(b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked,", b"Transfer-Encoding: chunked;q=1"),
    *(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked"),
    *(b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding:\n chunked", b"Transfer-Encoding\r\n: chunked"),
    *(b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked", b" Transfer-Encoding: chunked"),
    *(
        b"Transfer_Encoding: chunked",
        b"Transfer-Encod\xc4\xb1ng: chunked",
        b"TE: chunked",
        b"\x00Transfer-Encoding: chunked",
    ),
]
LENGTH_PERHAPS = [
    *(
        b"Content-Length : %d",
        b"Content-Length\t: %d",
        b"Content_Length: %d",
        b"Content-Length:\t%d",
        b"Content-Length:%d",
    ),
    *(b"Content-Length: 0%d", b"Content-Length: +%d", b"Content-Length: %d,", b"Content-Length: 0, %d"),
    *(b"Content-Length: %d\r\nContent-Length: 0", b"Content-Length: 0\r\nContent-Length: %d", b"Content-Length: %d.0"),
    *(b"Content-Length: %d\r", b"Content-Length: \x0b%d", b"Content-Length:\r\n %d", b"X: y\nContent-Length: %d"),
    *(
        b"Content-Length: %d\r\nContent-Length: %d",
        b"Content-Length: %d\x00",
        b"Connection: Content-Length\r\nContent-Length: %d",
    ),
]


def candidates() -> Iterator[tuple[str, bytes]]:
    """(name, what is sent before the marker)."""
    for name, data, _ in ROWS:
        yield name, data
    for number, line in enumerate(CHUNKED_PERHAPS):
        inner = END + HIDDEN
        yield f"length around hidden {number}", post(line, b"Content-Length: %d" % len(inner)) + inner
        chunk = b"%x\r\n%b\r\n" % (len(HIDDEN), HIDDEN) + END
        yield f"chunk around hidden {number}", post(b"Content-Length: 4", line) + chunk
        yield f"chunked alone {number}", post(line) + chunk
        ten = b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n" + line + b"\r\nContent-Length: 4\r\n\r\n"
        yield f"chunked in 1.0 {number}", ten + chunk
    for number, line in enumerate(LENGTH_PERHAPS):
        said = line.replace(b"%d", b"%d" % len(HIDDEN))
        yield f"length {number}", post(said) + HIDDEN
        yield f"length of a GET {number}", head(said) + HIDDEN
    size = b"%x" % len(HIDDEN)
    for number, start in enumerate(
        [
            *(
                b"0x" + size,
                b"+" + size,
                b" " + size,
                size + b" ",
                size + b"\t",
                size + b"_",
                b"0" * 20 + size,
                size.upper(),
            ),
            *(
                size + b";",
                size + b";a",
                size + b';a="\r\n"',
                size + b";a=\n",
                size + b" ; a",
                size + b"\x00",
                size + b"g",
            ),
            *(b"1" + b"0" * 15 + size, b"1" + b"0" * 16 + size, size + b"\r", size + b",", b"-1", b""),
        ]
    ):
        for kind, end in (("CRLF", b"\r\n"), ("LF", b"\n"), ("CR", b"\r")):
            yield f"chunk line {number} {kind}", CHUNKED + start + end + HIDDEN + b"\r\n" + END
    for number, end in enumerate((b"\n", b"\r", b"", b"xx", b"\r\n\r\n")):
        yield f"end of a chunk {number}", CHUNKED + b"5\r\nhello" + end + END
        yield f"end of the chunks {number}", CHUNKED + b"5\r\nhello\r\n0" + end + HIDDEN + b"\r\n\r\n"
    yield "trailers", CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"
    yield "a trailer with a length", CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"
    yield "a chunk's extension", CHUNKED + b"5;a=b\r\nhello\r\n" + END
    yield "absolute form", b"GET http://a/there HTTP/1.1\r\n" + HOST + b"\r\n"
    yield "absolute form, another host", b"GET http://b/there HTTP/1.1\r\n" + HOST + b"\r\n"
    yield "absolute form, no host", b"GET http://b/there HTTP/1.1\r\n\r\n"
    yield "kept in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
    yield "body in 1.0", b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"
    yield "two pipelined", head() + post(b"Content-Length: 5") + b"hello"
    yield "an expectation", post(b"Expect: 100-continue", b"Content-Length: 5") + b"hello"
    yield "an upgrade", head(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: ") + HIDDEN
    yield "a WebSocket", head(b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13") + HIDDEN
    yield "HEAD with a body", b"HEAD / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
    yield "encoded line end", b"GET /a%0d%0aHost:%20b HTTP/1.1\r\n" + HOST + b"\r\n"
    yield "lone LF between requests", head() + b"\n"
    yield "lone CR between requests", head() + b"\r"
    yield "unknown method", b"BREW / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
    yield "a version to come", b"GET / HTTP/1.9\r\n" + HOST + b"\r\n"
    yield "LF-only with a body", (POST + b"Content-Length: 5\r\n\r\n").replace(b"\r\n", b"\n") + b"hello"
    yield "CR-only", (GET + HOST + b"\r\n").replace(b"\r\n", b"\r")


CASES = [pytest.param(name, data, id=name) for name, data in candidates()]
# Lawful, and so to be served through every proxy.
SERVED = {
    "trailers": [("POST", "/", 5)],
    "a chunk's extension": [("POST", "/", 5)],
    "kept in 1.0": [("GET", "/", 0)],
    "body in 1.0": [("POST", "/", 5)],
    "two pipelined": [("GET", "/", 0), ("POST", "/", 5)],
    "an expectation": [("POST", "/", 5)],
}

NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/errors;
events {{}}
http {{
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/answers;
    fastcgi_temp_path {directory}/a;
    scgi_temp_path {directory}/b;
    uwsgi_temp_path {directory}/c;
    client_header_timeout 500ms;
    client_body_timeout 500ms;
    client_max_body_size 64m;
    lingering_close off;
    log_format forwarded escape=json
        '["$request_method","$request_uri","$proxy_internal_body_length","$upstream_status"]';
    access_log {directory}/log forwarded;
    upstream sdserve {{ server unix:{backend}; keepalive 4; }}
    server {{
        listen unix:{front};
        underscores_in_headers on;
        ignore_invalid_headers off;
        location / {{
            proxy_pass http://sdserve;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_next_upstream off;
            proxy_request_buffering {buffering};
        }}
    }}
}}
"""

HAPROXY = """
global
    log stdout format raw local0
defaults
    mode http
    log global
    timeout client 500ms
    timeout http-request 500ms
    timeout connect 10s
    timeout server 10s
    option http-ignore-probes
    {options}
frontend front
    bind unix@{front}
    http-request set-var(txn.size) {size}
    log-format '["%HM","%[capture.req.uri,json]","%[var(txn.size)]","%ST %s"]'
    default_backend back
backend back
    http-reuse always
    retries 0
    server sdserve unix@{backend}
"""

PROXIES = {
    "nginx": ("nginx", NGINX, {"buffering": "on"}),
    "nginx, bodies as they come": ("nginx", NGINX, {"buffering": "off"}),
    "haproxy": ("haproxy", HAPROXY, {"options": "option http-buffer-request", "size": "req.body_len"}),
    "haproxy, bodies as they come": ("haproxy", HAPROXY, {"options": "", "size": "req.hdr(content-length)"}),
}


class Behind:
    """sdserve behind a proxy that runs in `directory`, and what each of them says of the requests it saw."""

    def __init__(self, directory: Path, kind: str, app: str, stack: ExitStack) -> None:
        program, text, values = PROXIES[kind]
        self.front = str(directory / "front")
        self.backend = str(directory / "backend")
        self._witness = directory / "witness"
        self._witness.touch()
        self._log = directory / "log"
        self._log.touch()
        self._fences = 0
        config = directory / "config"
        config.write_text(text.format(directory=directory, front=self.front, backend=self.backend, **values))
        # The proxy's idle connections must not end by a time-out: it might just be using one of them.
        server = Server(
            *("-b", f"unix:{self.backend}", "--keep-alive", "600", app), env={"WITNESS": str(self._witness)}
        )
        stack.enter_context(server)
        server.wait_ready()
        path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        assert path is not None
        command = (
            [path, "-p", str(directory), "-c", str(config)] if program == "nginx" else [path, "-db", "-f", str(config)]
        )
        with self._log.open("ab") if program == "haproxy" else open(os.devnull, "wb") as out:
            proxy = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL)
        stack.callback(proxy.wait)
        stack.callback(proxy.kill)
        eventually(self._is_up, f"{program} listens")
        self.fence()

    def _is_up(self) -> bool:
        try:
            connector(self.front)().close()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def talk(self, data: bytes) -> bytes:
        """Sends `data` to the proxy; all that it answers until it closes, or has been silent for long."""
        with connector(self.front, timeout=5.0)() as sock:
            got = []
            try:
                sock.sendall(data)
                while piece := sock.recv(65536):
                    got.append(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the proxy refused early; what it forwarded before is in its log
            except TimeoutError:
                pass  # haproxy 3.0 keeps who sends a chunk header that is longer than its buffer
            return b"".join(got)

    def fence(self) -> tuple[Seen, Seen]:
        """(what the application saw, what the proxy forwarded to it) since the last fence.

        A request of its own ends the round in both records: the application has one thread, the proxy one process.
        """
        self._fences += 1
        path = f"/fence/{self._fences}"
        assert answer(self.backend, path + "/direct").status == 200
        assert answer(self.front, path).status == 200
        seen: Seen = [(method, target, size) for method, target, size in self._entries(self._witness, path)]
        forwarded: Seen = []
        for method, target, size, status in self._entries(self._log, path):
            if re.fullmatch("200( sdserve)?", status):
                known = size.isdigit() and (size != "0" or method in ("GET", "HEAD"))
                forwarded.append((method, target, int(size) if known else None))
        return self._since(seen), self._since(forwarded)

    def _entries(self, path: Path, last: str) -> list[list[Any]]:
        """The entries of a record, once it has the one for the target `last`.

        haproxy may log a request that came to nothing when it is over, after `last`.
        """

        def complete() -> list[list[Any]]:
            text = path.read_text("latin-1")
            entries: list[list[Any]] = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
            return entries if any(entry[1] == last for entry in entries) else []

        return eventually(complete, f"{last} is on record in {path.name}")

    def _since(self, record: Seen) -> Seen:
        """The entries after the last fence but one."""
        fences = [place for place, entry in enumerate(record) if re.fullmatch(r"/fence/\d+", entry[1])]
        start = fences[-2] + 1 if len(fences) > 1 else 0
        # haproxy logs the path of an absolute URI and forwards it whole.
        return [
            (method, re.sub("^http://[^/]*", "", target), size)
            for method, target, size in record[start:]
            if not target.startswith("/fence/")
        ]


WITNESSES = [
    *((kind, "witness") for kind in PROXIES),
    *((kind, "asgi_witness") for kind in PROXIES if "as they come" in kind),  # it is called amid a body only then
]


@pytest.fixture(scope="module", params=WITNESSES, ids=lambda each: each[0] + (", ASGI" if "asgi" in each[1] else ""))
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    """Each proxy in turn, with sdserve behind it."""
    kind, app = request.param
    if shutil.which(PROXIES[kind][0], path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
        pytest.skip(f"{PROXIES[kind][0]} is not installed")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sd-", dir="/tmp")))
        yield Behind(directory, kind, app, stack)


@pytest.mark.parametrize(("name", "data"), CASES)
def test_both_see_the_same_requests(behind: Behind, name: str, data: bytes) -> None:
    got = behind.talk(data + MARKER)
    seen, forwarded = behind.fence()
    assert [entry[:2] for entry in seen] == [entry[:2] for entry in forwarded], got[:500]
    for (_, _, size), (_, _, known) in zip(seen, forwarded, strict=True):
        assert known in (None, size)
    if name in SERVED:
        assert seen == [*SERVED[name], ("GET", "/marker", 0)]


def test_the_records_tell_a_request_that_the_proxy_does_not_know(behind: Behind) -> None:
    """The test's own eyes: what goes to the server past the proxy is noticed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(behind.backend)
        sock.sendall(b"GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while sock.recv(65536):
            pass
    assert behind.fence() == ([("GET", "/smuggled", 0)], [])
