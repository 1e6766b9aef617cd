"""Access records: gunicorn's atoms, and nothing that a client can forge."""

import base64
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdserve.access.formats import DEFAULT_FORMAT, Format, escape, unknown_atoms
from sdserve.access.log import AccessLog, refused
from tests.support.hostile import HOSTILE

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


class Record(NamedTuple):
    """What `take` is given."""

    environ: dict[str, Any]
    status: str
    sent: int
    seconds: float
    headers: Sequence[tuple[str, str]] = ()
    ended: str = "+"


def written(text: str, record: Record) -> str:
    form = Format(text)
    return form.lines([form.take(*record)])[0]


RECORD = Record(ENVIRON, "200 OK", 13, 1.234567, [("Content-Type", "text/plain")])


def test_the_default_is_the_combined_format() -> None:
    line = written(DEFAULT_FORMAT, RECORD)
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
    assert written(text, RECORD) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("%(h)-10s|%(h)10s|%(h).3s", "1.2.3.4   |   1.2.3.4|1.2"),
        ("%(D)d %(M)06d %(T)i %(B)-4d|", "1234567 001234 1 13  |"),
        ("%(zz)s %(zz)3s %({x}y)s %({}i)s", "-   - - -"),
        ("%({remote_addr}e)s", "1.2.3.4"),
        ("100 % of 5%", "100 % of 5%"),
    ],
)
def test_atoms_take_the_shapes_that_they_have_in_gunicorn(text: str, line: str) -> None:
    assert written(text, RECORD) == line


def test_what_is_no_atom_is_named() -> None:
    assert unknown_atoms("%(h)s %(zz)s %({x}y)-5s %% %(B)d") == ["%(zz)s", "%({x}y)-5s"]
    with pytest.raises(ValueError, match=r"%\(h\)d is not a number"):
        Format("%(h)d")


def test_nothing_can_be_forged() -> None:
    environ = {**ENVIRON, "HTTP_USER_AGENT": 'x" 200\n1.1.1.1 \x1b[31m\\ \x9b'}
    line = written('"%(a)s"', Record(environ, "200 OK", 0, 0.0))
    assert line == '"x\\x22 200\\x0a1.1.1.1 \\x1b[31m\\x5c \\x9b"'


LINE_MAX = 48 << 10  # journald.conf(5)
CLIENTS = ("%(r)s", "%(f)s", "%(a)s", "%(u)s", "%(U)s", "%(q)s", "%(m)s", "%(H)s", "%({cookie}i)s", "%({X}e)s")


def record_of(text: str) -> Record:
    keys = ("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL", "PATH_INFO", "QUERY_STRING")
    environ: dict[str, Any] = dict.fromkeys((*keys, "HTTP_REFERER", "HTTP_USER_AGENT", "HTTP_COOKIE", "X"), text)
    credentials = base64.b64encode(f"{text.replace(':', '')}:secret".encode("utf-8", "surrogatepass"))
    environ["HTTP_AUTHORIZATION"] = f"Basic {credentials.decode()}"
    return Record(environ, "200 OK", 0, 0.0)


@given(st.text(min_size=1, max_size=30), st.sampled_from([1, 100, 5000]))
@example("\u2028\u202e\x85\r\n\0<0>", 100)
@example("\0", 1)
@example('"', 8000)
@example("\U0001f600\ud800", 300)
def test_whatever_a_client_sends_is_one_line_of_bounded_length(text: str, times: int) -> None:
    record = record_of(text * times)
    for atom in CLIENTS:
        field = written(atom, record)
        assert re.fullmatch(r"(?:[ !#-\[\]-~]|\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}))*", field), field
        assert len(field) <= 2048
        assert not re.search("<[0-9]{1,3}>", field)
    line = written(" ".join(CLIENTS * 5), record)
    assert line.isprintable() and line.isascii() and len(line) < LINE_MAX


def test_what_is_cut_says_so_and_ends_with_a_whole_escape() -> None:
    for lead in range(12):
        field = escape("a" * lead + "\u20ac" * 5000)
        assert field.endswith(r"\u20ac...") and 2030 < len(field) <= 2048
    assert escape("a" * 2048) == "a" * 2048
    assert escape("a" * 2049) == "a" * 2045 + "..."


@pytest.mark.parametrize("value", ["Basic !!!", "Basic \xe9", "Basic a", "Bearer x", "Basic", "Basic Og=="])
def test_an_unreadable_user_is_a_dash(value: str) -> None:
    assert written("%(u)s", Record({**ENVIRON, "HTTP_AUTHORIZATION": value}, "200 OK", 0, 0.0)) == "-"


def test_a_user_of_any_encoding_is_escaped() -> None:
    for text, user in (("/w==", r"\xff"), ("asO8cmdlbjp4", r"j\xc3\xbcrgen")):
        record = Record({**ENVIRON, "HTTP_AUTHORIZATION": f"basic {text}"}, "200 OK", 0, 0.0)
        assert written("%(u)s", record) == user


def test_an_empty_body_is_0_and_a_unix_peer_a_dash() -> None:
    assert written("%(h)s %(b)s %(B)s", Record({**ENVIRON, "REMOTE_ADDR": ""}, "200", 0, 0.0)) == "- 0 0"


@pytest.mark.parametrize(
    ("line", "known"),
    [
        (b"GET /a HTTP/2.0", "GET /a HTTP/2.0|GET|/a|HTTP/2.0"),
        (b"GET /a b c", "GET /a b c|-|GET /a b c|-"),
        (b"\x16\x03\x01", r"\x16\x03\x01|-|\x16\x03\x01|-"),
        (b"", "-|-|-|-"),
    ],
)
def test_of_a_refused_request_what_is_known_is_recorded(line: bytes, known: str) -> None:
    environ = refused(line, [(b"User-Agent", b"x"), (b"User-Agent", b"y"), (b"User_Agent", b"z")], "1.2.3.4")
    text = '%(h)s "%(r)s|%(m)s|%({RAW_URI}e)s|%(H)s" %(s)s %(a)s %(f)s'
    assert written(text, Record(environ, "400 Bad Request", 16, 0.0)) == f'1.2.3.4 "{known}" 400 x -'


def a_log(form: str = DEFAULT_FORMAT) -> tuple[AccessLog, list[list[str]]]:
    """A log, and what it has written: batch by batch."""
    written: list[list[str]] = []
    return AccessLog(Format(form), lambda lines: written.append(list(lines)), pytest.fail), written


def test_records_wait_for_the_end_of_a_turn_and_are_written_together() -> None:
    log, written = a_log("%(s)s %(b)s")
    for number in range(3):
        log.record(ENVIRON, "200 OK", number, 0.001)
    assert written == [] and log.pending
    log.flush()
    log.flush()
    assert written == [["200 0", "200 1", "200 2"]]


def test_neither_many_records_nor_one_of_a_slow_request_wait() -> None:
    log, written = a_log("%(b)s")
    for number in range(64):
        log.record(ENVIRON, "200 OK", number, 0.001)
    assert [len(batch) for batch in written] == [64]
    log.record(ENVIRON, "200 OK", 1, 0.001)
    log.record(ENVIRON, "200 OK", 2, 1.0)
    assert written[1:] == [["1", "2"]]


AGENTS = st.one_of(
    st.sampled_from(["curl", 'a"b', "a\nb", "a\\b", "<0>", "<a>", "\x1b[m", "\xe9", "x" * 3000, "", "\t", "\x7f"]),
    st.text(max_size=20),
)


@given(st.lists(AGENTS, min_size=1, max_size=8), st.sampled_from([DEFAULT_FORMAT, "%(a)s", "%(p)s\t<%(a)-5s>\t\u20ac"]))
def test_what_one_client_sends_changes_no_other_record_of_its_batch(agents: list[str], form: str) -> None:
    """All are looked at together; what is found in one has every one of them written as it would be alone."""
    log, written = a_log(form)
    for agent in agents:
        log.record({**ENVIRON, "HTTP_USER_AGENT": agent}, "200 OK", 1, 0.0)
    log.flush()
    alone = [escape(agent) for agent in agents]
    assert len(written[0]) == len(agents)
    for line, agent in zip(written[0], alone, strict=True):
        assert line.endswith({DEFAULT_FORMAT: f'"{agent}"', "%(a)s": agent}.get(form, f"\t<{agent:5}>\t\u20ac"))
        assert "\n" not in line


def test_a_record_that_cannot_be_written_harms_no_other() -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    log, written = a_log("%(a)s")
    for agent in ("a", Odd(), "b"):
        log.record({**ENVIRON, "HTTP_USER_AGENT": agent}, "200 OK", 1, 0.0)
    log.flush()
    assert written[0][::2] == ["a", "b"] and "no text" in written[0][1]


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_what_forges_elsewhere_forges_nothing_here(value: bytes) -> None:
    text = value.decode("latin-1")
    user = base64.b64encode(value.replace(b":", b"") + b":secret").decode()
    environ = ENVIRON | {"RAW_URI": text, "HTTP_REFERER": text, "HTTP_USER_AGENT": text}
    environ["HTTP_AUTHORIZATION"] = f"Basic {user}"
    line = written(DEFAULT_FORMAT, Record(environ, "200 OK", 13, 0.0))
    assert line.isascii() and line.isprintable() and len(line) < LINE_MAX
    assert re.fullmatch(r'1\.2\.3\.4 - [^"]* \[[^]"]*\] "GET [^"]*" 200 13 "[^"]*" "[^"]*"', line), line
    assert not re.search("<[0-9]{1,3}>", line)
