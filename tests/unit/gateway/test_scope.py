"""What a scope says of a request: where it is mounted, who is believed, and whom its parts belong to."""

from typing import Any

import pytest

from sdserve.gateway.environ import Environs, Terms, variable
from sdserve.gateway.forwarded import TRUSTED, Forwarding, Trusted
from sdserve.gateway.scope import Scope, Scopes, websocket
from sdserve.http.errors import BadRequest
from sdserve.http.limits import Limits
from sdserve.http.pairs import PairsReader

SERVER, PEER = ("10.0.0.1", 80), ("10.0.0.9", 5555)
FORWARDING = Forwarding(Trusted(["10.0.0.9"]), {"X-FORWARDED-PROTO": "https"}, family="x-forwarded", key=variable)


def scope_of(
    target: str = "/",
    *fields: str,
    root_path: str = "",
    state: dict[str, Any] | None = None,
    trusted: bool = False,
    sendfile: bool = False,
    **terms: Any,
) -> Scope:
    environs = Environs(FORWARDING, Terms(errors=None, **terms))
    head = "\r\n".join((f"GET {target} HTTP/1.1", "Host: a", *fields, "", ""))
    request = PairsReader(Limits(), environs.names).read(head.encode("latin-1"))
    scopes = Scopes(environs, root_path, state, sendfile)
    return scopes.of_request(SERVER, PEER, request, TRUSTED if trusted else 0)


def mount(scope: Scope) -> tuple[str, str, bytes]:
    return scope["root_path"], scope["path"], scope["raw_path"]


# --- mounted at a path


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    ("how", "root"),
    [
        ({}, ""),
        ({"root_path": "/api"}, "/api"),
        ({"script_name": "/env/"}, "/env"),
        ({"script_name": "/env", "root_path": "/api/"}, "/api"),
        ({"root_path": "/"}, ""),
    ],
)
def test_the_setting_or_else_the_environment_says_it_to_everybody(
    how: dict[str, Any], root: str, trusted: bool
) -> None:
    assert mount(scope_of("/x", trusted=trusted, **how)) == (root, f"{root}/x", f"{root}/x".encode())
    assert scope_of(f"{root}/x", "A_B: 1", trusted=trusted, **how)["root_path"] == root


def test_a_trusted_proxy_knows_better() -> None:
    said = "Script_Name: /proxy/"
    terms: dict[str, Any] = {"forwarder": frozenset({"SCRIPT_NAME"}), "root_path": "/api"}
    assert mount(scope_of("/x", said, trusted=True, **terms)) == ("/proxy", "/proxy/x", b"/proxy/x")
    assert mount(scope_of("/x", said, **terms))[0] == "/api", "and nobody else"
    with pytest.raises(BadRequest):
        scope_of("/x", said, said, trusted=True, **terms)


@pytest.mark.parametrize(
    ("target", "path"),
    [("/x", "/api/x"), ("/api", "/api"), ("/api/", "/api/"), ("/apix", "/api/apix"), ("/%61pi/x", "/api/x")],
)
def test_the_path_begins_with_it_whether_the_proxy_has_left_it_there_or_not(target: str, path: str) -> None:
    assert scope_of(target, root_path="/api")["path"] == path


def test_it_is_quoted_where_it_stands_in_a_raw_path() -> None:
    assert mount(scope_of("/x%20", root_path="/ü b%/@(1)")) == (
        *("/ü b%/@(1)", "/ü b%/@(1)/x "),
        b"/%C3%BC%20b%25/@(1)/x%20",
    )
    said, forwarder = "Script_Name: /\u00c3\u00bc", frozenset({"SCRIPT_NAME"})  # as bytes of UTF-8
    assert mount(scope_of("/x", said, trusted=True, forwarder=forwarder)) == ("/ü", "/ü/x", b"/%C3%BC/x")
    assert mount(scope_of("/x", script_name="/\udcff"))[2] == b"/%FF/x", "an environment of any bytes"


# --- who is believed


def test_a_trusted_peer_speaks_for_its_client_and_nobody_else_does() -> None:
    said = ("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https")
    found = scope_of("/", *said, trusted=True)
    assert (found["client"], found["scheme"]) == (("1.2.3.4", 0), "https")
    found = scope_of("/", *said)
    assert (found["client"], found["scheme"]) == (PEER, "http")
    assert scope_of("/", trusted=True)["scheme"] == "http", "who says nothing means that"
    websocket(found := scope_of("/", *said, trusted=True), ["a"])
    assert (found["type"], found["scheme"], found["subprotocols"], "method" in found) == (
        *("websocket", "wss", ["a"]),
        False,
    )


def test_fields_with_underscores_are_not_passed_on() -> None:
    headers = scope_of("/", "X_A: 1", "X-B: 2", "X-B: 3")["headers"]
    assert headers == [(b"host", b"a"), (b"x-b", b"2"), (b"x-b", b"3")]


def test_the_target_says_who_is_meant_whatever_host_says() -> None:
    found = scope_of("http://b:8000/x?y=%20", "X-A: 1")
    assert found["headers"] == [(b"host", b"b:8000"), (b"x-a", b"1")]
    assert (found["path"], found["query_string"]) == ("/x", b"y=%20")


# --- whose its parts are


def test_each_request_has_mappings_of_its_own() -> None:
    state = {"pool": []}  # type: ignore[var-annotated]
    environs = Environs(FORWARDING, Terms(errors=None))
    reader, scopes = PairsReader(Limits(), environs.names), Scopes(environs, "", state, True)
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    one, two = (scopes.of_request(SERVER, PEER, reader.read(head), 0) for _ in range(2))
    for key in ("headers", "extensions", "state", "asgi"):
        assert one[key] == two[key] and one[key] is not two[key]
    assert one["state"]["pool"] is two["state"]["pool"] is state["pool"]
    assert "state" not in scope_of(), "where the application has no lifespan"


def test_what_keeps_bodies_from_middleware_is_offered_on_demand_alone() -> None:
    always = {"http.response.trailers", "http.response.early_hint"}
    assert set(scope_of()["extensions"]) == always
    files = {"http.response.pathsend", "http.response.zerocopysend"}
    assert set(scope_of(sendfile=True)["extensions"]) == always | files


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert (scope_of("/%FF")["path"], scope_of("/%FF")["raw_path"]) == ("/\ufffd", b"/%FF")
