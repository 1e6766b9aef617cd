"""The reader of pairs: it accepts what the other reader accepts, and refuses the rest with the same status, always."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdserve.gateway.environ import cgi_name
from sdserve.http.errors import HTTPError
from sdserve.http.limits import Limits
from sdserve.http.names import Names
from sdserve.http.pairs import PairsReader
from sdserve.http.request import Request, RequestReader
from tests.unit.http.test_hostile import ROWS
from tests.unit.http.test_properties import HEADS, LINES, SMALL

pytestmark = pytest.mark.once

LIMITS = st.sampled_from([Limits(), SMALL, Limits(head=70)])
WHOLE = [head for _, data, _ in ROWS if (head := data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n") and b"\r\n\r\n" in data]


def verdict(reader: RequestReader, data: bytes) -> object:
    try:
        found = reader.read(data)
    except HTTPError as error:
        return error.status
    return said(found)


def said(found: Request) -> object:
    if found.pairs is not None:
        assert found.pairs == [(name.lower(), value) for name, value in found.fields]
        assert found.by_name == dict(found.pairs) and len(found.by_name) == len(found.pairs)
        assert not found.odd
    line = found.method, found.uri, found.path, found.query, found.minor, found.fields, found.odd
    return *line, found.length, found.expect, found.host, found.upgrade, found.keep_alive


def made(limits: Limits) -> PairsReader:
    return PairsReader(limits, Names(cgi_name))


def exact(limits: Limits, data: bytes) -> object:
    return verdict(RequestReader(limits, Names(cgi_name)), data)


@given(HEADS, LIMITS)
@settings(max_examples=800)
def test_both_readers_say_the_same_whatever_was_read_before(heads: list[bytes], limits: Limits) -> None:
    reader = made(limits)
    for data in heads * 2:
        assert verdict(reader, data) == exact(limits, data)


@given(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=8), LIMITS)
@settings(max_examples=600)
def test_what_is_hostile_poisons_nothing_for_the_next_head(heads: list[bytes], limits: Limits) -> None:
    """One reader serves all connections of a worker."""
    reader = made(limits)
    for data in heads:
        assert verdict(reader, data) == exact(limits, data)
        good = b"GET /next HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n"
        assert verdict(reader, good) == exact(limits, good)


@given(st.lists(LINES, max_size=5))
@settings(max_examples=600)
def test_any_line_of_a_field(lines: list[bytes]) -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    data = data[: data.index(b"\r\n\r\n") + 4]
    reader = made(Limits())
    for _ in range(3):
        assert verdict(reader, data) == exact(Limits(), data)


@pytest.mark.parametrize("data", WHOLE, ids=range(len(WHOLE)))
def test_rows_of_the_table(data: bytes) -> None:
    reader = made(Limits())
    assert {str(verdict(reader, data)) for _ in range(3)} == {str(exact(Limits(), data))}


def test_what_is_remembered_is_bounded() -> None:
    reader = made(Limits())
    for number in range(2500):
        for long in (b"", b"a" * 3000):
            head = b"GET /%d%b HTTP/1.1\r\nHost: h%d\r\nX-%d%b: b\r\n\r\n" % (number, long, number, number, long)
            assert reader.read(head).host == reader.read(head).host == f"h{number}"
    for memory in (reader._lines, reader._lower, reader._host_names, reader._small):
        assert 0 < len(memory) <= 1000
        assert sum(map(len, memory)) < 400_000


def test_what_is_remembered_is_nobodys_to_change() -> None:
    reader = made(Limits())
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for _ in range(4):
        found = reader.read(head)
        assert found.pairs == [(b"host", b"a")] and found.by_name == {b"host": b"a"}
        found.pairs.clear()
        found.by_name.clear()


def test_nothing_of_a_refused_or_unusual_head_stays() -> None:
    reader = made(Limits())
    for method in (b"PURGE", b"GET", b"GET  "):
        for number in range(50):
            fields = b"Host: a\r\nTransfer-Encoding: x\r\nX-%d: secret\r\n\r\n" % number
            verdict(reader, method + b" / HTTP/1.1\r\n" + fields)
        assert len(reader._fields.found) <= 3
