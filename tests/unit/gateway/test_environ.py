"""Environs: what a request's line, its fields, its connection and a trusted proxy come to by CGI's names."""

import sys
from typing import Any

import pytest

from sdserve.gateway.environ import Environs, Terms, variable
from sdserve.gateway.forwarded import TRUSTED, UNNAMED, Forwarding, Trusted
from sdserve.http.limits import Limits
from sdserve.http.request import Request, RequestReader
from sdserve.http.response import HeadWriter


def made(**terms: Any) -> Environs:
    forwarding = Forwarding(Trusted(["10.0.0.1"]), {"X-FORWARDED-PROTO": "https"}, key=variable)
    return Environs(forwarding, Terms(sys.stderr, **terms))


def read(data: bytes) -> Request:
    return RequestReader(Limits()).read(data)


def environ_of(data: bytes, trusted: bool = False, peer: str = "10.0.0.1", **terms: Any) -> dict[str, Any]:
    """The environ of a request: built of its fields, read straight into it, and read so again. All are the same."""
    environs = made(**terms)
    base = environs.of_connection(("1.1.1.1", "80"), (peer, "5"))
    reader = RequestReader(Limits(), environs.names)
    fresh = (None, base.copy, base.copy)
    found, *others = [environs.of_request(base, reader.read(data, each), trusted) for each in fresh]
    assert all(other == found for other in others)
    return found


def test_environ_follows_the_request_line() -> None:
    environ = environ_of(b"GET /a%20b/%C3%A4%2f?x=%20 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert environ["PATH_INFO"] == "/a b/\xc3\xa4/"
    assert environ["QUERY_STRING"] == "x=%20"
    assert environ["RAW_URI"] == "/a%20b/%C3%A4%2f?x=%20"
    environ = environ_of(b"GET http://H:80/a?b HTTP/1.1\r\nHost: other\r\n\r\n")
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_HOST"]) == ("/a", "b", "H:80")
    assert environ_of(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")["PATH_INFO"] == ""


def test_underscores_need_a_trusted_forwarder() -> None:
    data = b"GET /app/x HTTP/1.1\r\nHost: h\r\nSCRIPT_NAME: /app\r\nX_A: 1\r\nREMOTE_USER: root\r\n\r\n"
    environ = environ_of(data)
    assert environ["SCRIPT_NAME"] == ""
    assert not {"X_A", "HTTP_X_A", "REMOTE_USER", "HTTP_REMOTE_USER"} & environ.keys()
    environ = environ_of(data, trusted=True, forwarder=frozenset(("SCRIPT_NAME",)))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/x")
    assert "HTTP_X_A" not in environ
    assert environ_of(data, header_map="dangerous")["HTTP_X_A"] == "1"
    with pytest.raises(Exception, match="underscore"):
        environ_of(data, header_map="refuse")
    with pytest.raises(Exception, match="outside"):
        environ_of(data.replace(b"/app/x", b"/application"), trusted=True, forwarder=frozenset(("SCRIPT_NAME",)))
    with pytest.raises(Exception, match="more than one"):
        environ_of(data.replace(b"X_A: 1", b"SCRIPT_NAME: /app"), trusted=True, forwarder=frozenset(("SCRIPT_NAME",)))


def test_no_header_is_the_path_nor_by_default_the_mount_point() -> None:
    """A proxy that passes underscores on would let its clients past its rules for paths."""
    data = b"GET /public HTTP/1.1\r\nHost: h\r\nPATH_INFO: /admin\r\nScript_Name: /public\r\n\r\n"
    environ = environ_of(data, trusted=True)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/public")
    assert environ_of(data, trusted=True, forwarder=frozenset(("PATH_INFO",)))["PATH_INFO"] == "/public"


@pytest.mark.parametrize(
    ("fields", "server"),
    [
        (b"Host: shop.example:8080", ("shop.example", "8080")),
        (b"Host: shop.example", ("shop.example", "80")),
        (b"Host: shop.example\r\nX-Forwarded-Proto: https", ("shop.example", "443")),
        (b"Host: [::1]:81", ("[::1]", "81")),
        (b"Host:", ("localhost", "80")),
    ],
)
def test_where_the_listener_has_no_name_the_server_is_the_requests_host(fields: bytes, server: tuple[str, str]) -> None:
    environs = made()
    base = environs.of_connection(("localhost", "80"), ("", ""))
    for _ in range(2):
        request = read(b"GET / HTTP/1.1\r\n" + fields + b"\r\n\r\n")
        environ = environs.of_request(base, request, TRUSTED | UNNAMED)
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == server
        assert environs.of_request(base, request, TRUSTED)["SERVER_NAME"] == "localhost"


def test_forwarded_headers_count_from_trusted_peers_only() -> None:
    data = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
    environ = environ_of(data)
    assert (environ["wsgi.url_scheme"], environ["REMOTE_ADDR"]) == ("http", "10.0.0.1")
    environ = environ_of(data, trusted=True)
    assert (environ["wsgi.url_scheme"], environ["REMOTE_ADDR"]) == ("https", "9.9.9.9")


def test_what_clients_and_applications_say_is_remembered_in_bounds() -> None:
    environs = made()
    writer = HeadWriter("test")
    reader = RequestReader(Limits(), environs.names)
    base = environs.of_connection(("1.1.1.1", "80"), ("10.0.0.1", "5"))
    for number in range(2500):
        name = f"X-{number}"
        for long in ("", "a" * 3000):
            data = f"GET / HTTP/1.1\r\nHost: a\r\n{name}{long}: b\r\n\r\n".encode()
            for fresh in (None, base.copy):
                environs.of_request(base, reader.read(data, fresh), False)
            writer.head(f"200 {name}{long}", [(name + long, "b"), ("X-Long", name + long)])
        environs.of_connection((f"fd00::{number}", "80"), ("10.0.0.1", "5"))
    for held in (environs.names.known, writer._statuses, writer._lines, writer._heads):
        assert 0 < len(held) <= 1000
        assert sum(len(repr(key)) for key in held) < 400_000
    assert len(environs._templates) <= 1000
    assert "X-2499" in environs.names.known
