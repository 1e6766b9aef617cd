"""The PROXY protocol: both versions, at every split, and nothing else."""

import socket
import struct

import pytest

from sdserve.http.errors import BadRequest
from sdserve.http.proxy import SIGNATURE, parse


def version_2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses)) + addresses


V4 = socket.inet_aton("1.2.3.4") + socket.inet_aton("5.6.7.8") + struct.pack("!HH", 1234, 80)
V6 = socket.inet_pton(socket.AF_INET6, "::1") * 2 + struct.pack("!HH", 1234, 80)


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1234 80\r\n", ("1.2.3.4", "1234")),
        (b"PROXY TCP6 2001:db8::1 ::1 1234 80\r\n", ("2001:db8::1", "1234")),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n", None),
        (version_2(0x21, 0x11, V4), ("1.2.3.4", "1234")),
        (version_2(0x21, 0x11, V4 + b"tlvs"), ("1.2.3.4", "1234")),
        (version_2(0x21, 0x21, V6), ("::1", "1234")),
        (version_2(0x20, 0x00, b""), None),
        (version_2(0x20, 0x11, V4), None),
        (version_2(0x21, 0x31, b"x" * 216), None),
    ],
)
def test_a_header_is_read_at_every_split(header: bytes, source: tuple[str, str] | None) -> None:
    for at in range(len(header)):
        assert parse(header[:at]) is None
    for rest in (b"", b"GET / HTTP/1.1\r\n"):
        found = parse(header + rest)
        assert found is not None
        assert found.source == source
        assert found.size == len(header)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1234\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1234 80\n",
        b"PROXY TCP4 ::1 ::1 1234 80\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1234 80\r\n",
        b"PROXY TCP4 1.2.3.400 5.6.7.8 1234 80\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n",
        b"PROXY  TCP4 1.2.3.4 5.6.7.8 1234 80\r\n",
        b"PROXY " + b"a" * 200,
        version_2(0x11, 0x11, V4),
        version_2(0x22, 0x11, V4),
        version_2(0x21, 0x11, V4[:8]),
        version_2(0x21, 0x11, b"x" * 5000)[:16],
        SIGNATURE[:5] + b"x",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(data)


def test_one_version_may_be_demanded() -> None:
    first, second = b"PROXY UNKNOWN\r\n", version_2(0x20, 0x00, b"")
    assert parse(first, "v1")
    assert parse(second, "v2")
    for data, versions in ((first, "v2"), (second, "v1")):
        with pytest.raises(BadRequest):
            parse(data, versions)
