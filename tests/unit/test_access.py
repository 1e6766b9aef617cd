"""Access records: gunicorn's atoms, and nothing that a client can forge."""

import re
from typing import Any

import pytest

from sdserve.access import DEFAULT_FORMAT, Record, compile_format

ENVIRON: dict[str, Any] = {
    "REMOTE_ADDR": "1.2.3.4",
    "REQUEST_METHOD": "GET",
    "RAW_URI": "/a?b=c",
    "PATH_INFO": "/a",
    "QUERY_STRING": "b=c",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_USER_AGENT": "curl",
    "HTTP_AUTHORIZATION": "Basic dXNlcjpwYXNz",
}
RECORD = Record(ENVIRON, "200 OK", 13, 1.234567, [("Content-Type", "text/plain")])


def test_the_default_is_the_combined_format() -> None:
    line = compile_format(DEFAULT_FORMAT)(RECORD)
    assert re.fullmatch(
        r"1\.2\.3\.4 - user \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}] "
        r'"GET /a\?b=c HTTP/1\.1" 200 13 "-" "curl"',
        line,
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("%(m)s %(U)s %(q)s %(H)s", "GET /a b=c HTTP/1.1"),
        ("%(T)s %(M)s %(D)s %(L)s", "1 1234 1234567 1.234567"),
        ("%(B)s %(b)s %(st)s", "13 13 200 OK"),
        ("%({User-Agent}i)s %({content-type}o)s %({REMOTE_ADDR}e)s %({x}i)s", "curl text/plain 1.2.3.4 -"),
        ("100%% %(s)s%%", "100% 200%"),
        ("", ""),
    ],
)
def test_atoms(text: str, line: str) -> None:
    assert compile_format(text)(RECORD) == line


@pytest.mark.parametrize("text", ["%(zz)s", "%({x}y)s", "%({}i)s"])
def test_an_unknown_atom_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not an atom"):
        compile_format(text)


def test_nothing_can_be_forged() -> None:
    environ = {**ENVIRON, "HTTP_USER_AGENT": 'x" 200\n1.1.1.1 \x1b[31m\\ \x9b'}
    line = compile_format('"%(a)s"')(Record(environ, "200 OK", 0, 0.0))
    assert line == '"x\\x22 200\\x0a1.1.1.1 \\x1b[31m\\x5c \\x9b"'


@pytest.mark.parametrize("value", ["Basic !!!", "Basic /w==", "Bearer x", "Basic", "Basic Og=="])
def test_an_unreadable_user_is_a_dash(value: str) -> None:
    assert compile_format("%(u)s")(Record({**ENVIRON, "HTTP_AUTHORIZATION": value}, "200 OK", 0, 0.0)) == "-"


def test_an_empty_body_and_a_unix_peer_are_dashes() -> None:
    assert compile_format("%(h)s %(b)s %(B)s")(Record({**ENVIRON, "REMOTE_ADDR": ""}, "200", 0, 0.0)) == "- - 0"
