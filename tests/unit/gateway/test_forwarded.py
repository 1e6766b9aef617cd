"""Who is believed about the client, and how much."""

from typing import Any

import pytest

from sdserve.gateway.forwarded import Forwarding, Trusted, parse_forwarded, split_node
from sdserve.http.errors import BadRequest

SECURE = {"X-FORWARDED-PROTOCOL": "ssl", "X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"}


def test_trust_is_by_address_network_or_everyone() -> None:
    trusted = Trusted(["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"])
    for address in ("127.0.0.1", "10.1.2.3", "::1", "fd00::1", "::ffff:10.1.1.1", ""):
        assert address in trusted
    for address in ("127.0.0.2", "11.0.0.1", "2001:db8::1", "nonsense"):
        assert address not in trusted
    assert "1.2.3.4" in Trusted(["*"])
    with pytest.raises(ValueError, match="not"):
        Trusted(["localhost"])


def apply(**headers: str) -> dict[str, Any]:
    environ: dict[str, Any] = {"wsgi.url_scheme": "http", "REMOTE_ADDR": "10.0.0.1", "REMOTE_PORT": "5"}
    environ |= {"HTTP_" + name: value for name, value in headers.items()}
    Forwarding(Trusted(["10.0.0.0/8"]), SECURE).apply(environ)
    return environ


def test_the_scheme_is_the_proxys() -> None:
    assert apply(X_FORWARDED_PROTO="https")["wsgi.url_scheme"] == "https"
    assert apply(X_FORWARDED_SSL="off")["wsgi.url_scheme"] == "http"
    assert apply(FORWARDED="for=1.2.3.4;proto=https")["wsgi.url_scheme"] == "https"
    assert apply()["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize(
    "headers",
    [
        {"X_FORWARDED_PROTO": "https", "X_FORWARDED_SSL": "off"},
        {"X_FORWARDED_PROTO": "http", "FORWARDED": "proto=https"},
        {"FORWARDED": "proto=gopher"},
        {"FORWARDED": "for"},
    ],
)
def test_contradictions_and_nonsense_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        apply(**headers)


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"X_FORWARDED_FOR": "1.2.3.4"}, "1.2.3.4"),
        ({"X_FORWARDED_FOR": "6.6.6.6, 1.2.3.4"}, "1.2.3.4"),
        ({"X_FORWARDED_FOR": "1.2.3.4, 10.9.9.9"}, "1.2.3.4"),
        ({"X_FORWARDED_FOR": "10.8.8.8, 10.9.9.9"}, "10.8.8.8"),
        ({"X_FORWARDED_FOR": "1.2.3.4, unknown, 10.9.9.9"}, "10.9.9.9"),
        ({"X_FORWARDED_FOR": "unknown"}, "10.0.0.1"),
        ({"FORWARDED": 'for="[2001:db8::1]:4711"', "X_FORWARDED_FOR": "1.2.3.4"}, "2001:db8::1"),
        ({"FORWARDED": "for=1.2.3.4, for=_hidden"}, "10.0.0.1"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxy(headers: dict[str, str], client: str) -> None:
    environ = apply(**headers)
    assert environ["REMOTE_ADDR"] == client
    if client != "10.0.0.1":
        assert environ["REMOTE_PORT"] in ("", "4711")


def test_with_everyone_trusted_the_last_hop_is_believed() -> None:
    environ: dict[str, Any] = {"HTTP_X_FORWARDED_FOR": "6.6.6.6, 1.2.3.4", "REMOTE_ADDR": "x"}
    Forwarding(Trusted(["*"]), SECURE).apply(environ)
    assert environ["REMOTE_ADDR"] == "1.2.3.4"


def test_forwarded_is_parsed_by_rfc_7239() -> None:
    assert parse_forwarded('For="[2001:db8:cafe::17]:4711";proto=http;by=203.0.113.43, for="_x\\"y"') == [
        {"for": "[2001:db8:cafe::17]:4711", "proto": "http", "by": "203.0.113.43"},
        {"for": '_x"y'},
    ]
    for bad in ("for=a;for=b", 'for="a', "=a", "for=", "for=a,", "for=a b=c", "f@=a"):
        with pytest.raises(BadRequest):
            parse_forwarded(bad)


@pytest.mark.parametrize(
    ("node", "split"),
    [
        ("1.2.3.4", ("1.2.3.4", "")),
        ("1.2.3.4:80", ("1.2.3.4", "80")),
        ("::1", ("::1", "")),
        ("[::1]:80", ("::1", "80")),
        ("[::1]", ("::1", "")),
        ("unknown", ("", "")),
        ("_gazonk", ("", "")),
        ("1.2.3.4:x", ("1.2.3.4", "")),
    ],
)
def test_a_hop_is_an_address_and_a_port(node: str, split: tuple[str, str]) -> None:
    assert split_node(node) == split
