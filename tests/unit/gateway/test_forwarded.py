"""Who is believed about the client, and how much."""

from contextlib import nullcontext
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdserve.gateway.environ import variable
from sdserve.gateway.forwarded import Forwarding, Trusted, parse_address, parse_forwarded, split_node
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


def apply(family: str = "x-forwarded", **headers: str) -> dict[str, Any]:
    environ: dict[str, Any] = {"wsgi.url_scheme": "http", "REMOTE_ADDR": "10.0.0.1", "REMOTE_PORT": "5"}
    environ |= {"HTTP_" + name: value for name, value in headers.items()}
    client, scheme = Forwarding(Trusted(["10.0.0.0/8"]), SECURE, family, variable).read(environ)
    if client is not None:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client
    return environ | ({"wsgi.url_scheme": scheme} if scheme else {})


def forwarded(text: str) -> dict[str, Any]:
    return apply("forwarded", FORWARDED=text)


def test_the_scheme_is_the_proxys() -> None:
    assert apply(X_FORWARDED_PROTO="https")["wsgi.url_scheme"] == "https"
    assert apply(X_FORWARDED_PROTO="HTTPS")["wsgi.url_scheme"] == "https"
    assert apply(X_FORWARDED_SSL="off")["wsgi.url_scheme"] == "http"
    assert forwarded("for=1.2.3.4;proto=https")["wsgi.url_scheme"] == "https"
    assert apply()["wsgi.url_scheme"] == "http"


def test_a_scheme_said_twice_is_still_that_scheme() -> None:
    assert apply(X_FORWARDED_PROTO="https,https")["wsgi.url_scheme"] == "https"
    assert apply(X_FORWARDED_PROTO="http, http", X_FORWARDED_SSL="off")["wsgi.url_scheme"] == "http"


CLAIMS = {"X_FORWARDED_FOR": "1.1.1.1", "X_FORWARDED_PROTO": "https", "FORWARDED": "for=2.2.2.2;proto=http"}


@pytest.mark.parametrize(
    ("family", "client", "scheme"),
    [("x-forwarded", "1.1.1.1", "https"), ("forwarded", "2.2.2.2", "http"), ("none", "10.0.0.1", "http")],
)
def test_one_family_is_believed_and_the_other_one_is_the_applications(family: str, client: str, scheme: str) -> None:
    """Behind nginx, which adds to X-Forwarded-For and passes Forwarded on, Forwarded is what the client made up."""
    environ = apply(family, **CLAIMS)
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == (client, scheme)
    assert {key[5:]: value for key, value in environ.items() if key.startswith("HTTP_")} == CLAIMS


@pytest.mark.parametrize(("family", "other"), [("x-forwarded", "FORWARDED"), ("forwarded", "X_FORWARDED_PROTO")])
def test_nonsense_in_the_other_family_is_not_even_read(family: str, other: str) -> None:
    assert apply(family, **{other: ';;for="'})["REMOTE_ADDR"] == "10.0.0.1"


@pytest.mark.parametrize(
    "headers",
    [
        {"X_FORWARDED_PROTO": "https", "X_FORWARDED_SSL": "off"},
        {"X_FORWARDED_PROTO": "https, http"},
    ],
)
def test_contradictions_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        apply(**headers)


@pytest.mark.parametrize("text", ["proto=gopher", "for", "for=1.1.1.1;for=2.2.2.2"])
def test_a_forwarded_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        forwarded(text)


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("1.2.3.4, 10.9.9.9", "1.2.3.4"),
        ("10.8.8.8, 10.9.9.9", "10.8.8.8"),
        ("1.2.3.4, unknown, 10.9.9.9", "10.9.9.9"),
        ("unknown", "10.0.0.1"),
        ('fe80::1%"><script>', "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxy(chain: str, client: str) -> None:
    environ = apply(X_FORWARDED_FOR=chain)
    assert environ["REMOTE_ADDR"] == client
    assert environ["REMOTE_PORT"] == ("5" if client == "10.0.0.1" else "")


@pytest.mark.parametrize(
    ("text", "client", "scheme"),
    [
        ('for="[2001:db8::1]:4711"', ("2001:db8::1", "4711"), "http"),
        ("for=1.2.3.4, for=_hidden", ("10.0.0.1", "5"), "http"),
        ("for=6.6.6.6, proto=https", ("10.0.0.1", "5"), "https"),  # the proxy said nothing of whom it spoke to
        ("for=1.2.3.4;proto=https, for=10.9.9.9;proto=http", ("1.2.3.4", ""), "https"),
        ("for=1.2.3.4, for=10.9.9.9;proto=https", ("1.2.3.4", ""), "https"),
        ("for=6.6.6.6;proto=https, for=1.2.3.4;proto=http", ("1.2.3.4", ""), "http"),
    ],
)
def test_each_hop_of_forwarded_says_address_and_scheme(text: str, client: tuple[str, str], scheme: str) -> None:
    environ = forwarded(text)
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"], environ["wsgi.url_scheme"]) == (*client, scheme)


def test_with_everyone_trusted_the_last_hop_is_believed() -> None:
    found = Forwarding(Trusted(["*"]), SECURE).read({"x-forwarded-for": "6.6.6.6, 1.2.3.4"})
    assert found == (("1.2.3.4", ""), "")


ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=4).map("::ffff:{}".format),
    st.text(alphabet="0123456789abcdefF:.%", max_size=20),
)


@given(ADDRESSES, st.ip_addresses(), st.integers(0, 32))
@settings(max_examples=500)
def test_addresses_are_what_pythons_ipaddress_takes_for_addresses(text: str, other: Any, bits: int) -> None:
    """The kernel's way of reading them is five times as fast, and has to be the same."""
    try:
        known = ip_address(text)
    except ValueError:
        known = None
    assert (split_node(text) != ("", "")) is (known is not None) or ":" in text  # 1.2.3.4:80, fe80::1%a.b
    packed = parse_address(text)
    assert packed == (known.packed if known is not None else packed if "%" in text else None)
    network = ip_network(f"{other}/{bits}", strict=False)
    if known is not None:
        mapped = getattr(known, "ipv4_mapped", None)
        inside = known in network or (mapped is not None and mapped in network)
        assert (text in Trusted([str(network)])) is inside


@given(ADDRESSES)
@settings(max_examples=300)
def test_who_is_trusted_is_named_as_for_pythons_ipaddress(text: str) -> None:
    try:
        ip_network(text.strip())
    except ValueError:
        with pytest.raises(ValueError, match=r"does not appear to be|^$") if text.strip() else nullcontext():
            Trusted([text])
    else:
        assert text.strip() in Trusted([text])


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        (
            'For="[2001:db8:cafe::17]:4711";proto=http;by=203.0.113.43, for="_x\\"y"',
            [{"for": "[2001:db8:cafe::17]:4711", "proto": "http", "by": "203.0.113.43"}, {"for": '_x"y'}],
        ),
        ("for=1.1.1.1;x-ext=1", [{"for": "1.1.1.1", "x-ext": "1"}]),
        ("for=1.1.1.1;x2=a;", [{"for": "1.1.1.1", "x2": "a"}]),
        (";for=a;;by=b", [{"for": "a", "by": "b"}]),
        (", for=a ,, ; ,for=b,", [{"for": "a"}, {"for": "b"}]),
        ('for="";host="a, b; c"', [{"for": "", "host": "a, b; c"}]),
        ("for=1.2.3.4:80", [{"for": "1.2.3.4:80"}]),
        (" for=a ; proto=http ", [{"for": "a", "proto": "http"}]),
        ("", []),
    ],
)
def test_forwarded_is_parsed_by_rfc_7239(text: str, elements: list[dict[str, str]]) -> None:
    assert parse_forwarded(text) == elements


@pytest.mark.parametrize(
    "bad",
    [
        *("for=a;for=b", 'for="a', "=a", "for=", "for", "for=a b=c", "f@=a", "for =a", "for= a", 'for=a"b"'),
        *('for="a"b', "for=\x00", 'for="\x00"', 'for="\\', "for=a/b", "f\xe9=a", 'for="\u2028"'),
    ],
)
def test_a_malformed_forwarded_is_refused(bad: str) -> None:
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
        ("::ffff:1.2.3.4", ("::ffff:1.2.3.4", "")),
        ("fe80::1%eth0.1", ("fe80::1%eth0.1", "")),
        ("1.2.3.4:_hidden", ("1.2.3.4", "")),
        *((bad, ("", "")) for bad in ("unknown", "_gazonk", "", "1.2.3.4:x", "1.2.3.4:", "1.2.3.4:65536", "1.2.3")),
        *((bad, ("", "")) for bad in ("[::1", "::1]", "[::1]x", "[::1]:", "[1.2.3.4", "1.2.3.4%eth0", "01.2.3.4")),
        *((bad, ("", "")) for bad in ("fe80::1%", "fe80::1%a b", "fe80::1%<", "::1\n", "\u0661.2.3.4")),
    ],
)
def test_a_hop_is_an_address_and_a_port(node: str, split: tuple[str, str]) -> None:
    assert split_node(node) == split
