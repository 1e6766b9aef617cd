"""The PROXY protocol, versions 1 and 2: how a TCP proxy says whom a connection comes from.

It precedes the first request, and is read only from peers that are trusted to send it; it is never optional there,
since a client could send it otherwise. Source: haproxy's doc/proxy-protocol.txt, sections 2.1 and 2.2.
"""

import re
import socket
import struct

from sdserve.http.errors import BadRequest
from sdserve.immutable import Immutable

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_LONGEST = 107
V2_LONGEST = 16 + 4096  # addresses and TLVs; the protocol allows 64 KiB, no proxy sends that
V1 = re.compile(rb"PROXY (?:UNKNOWN(?: [ -~]*)?|(TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (\d{1,5}) (\d{1,5}))\r\n")
V2_ADDRESSES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}


class Header(Immutable):
    """`size` bytes were the header; `source` is (address, port), None when the proxy speaks for itself."""

    size: int
    source: tuple[str, str] | None


def parse(data: bytes, versions: str = "auto") -> Header | None:
    """The header at the start of `data`, None when more is needed. Raises BadRequest.

    `versions` is v1, v2, or auto for either.
    """
    if versions != "v1" and data[:12] == SIGNATURE[: len(data)]:
        return _version_2(data)
    if versions != "v2" and data[:6] == b"PROXY "[: len(data)]:
        return _version_1(data)
    raise BadRequest("a PROXY header was expected first")


def _version_1(data: bytes) -> Header | None:
    end = data.find(b"\n", 0, V1_LONGEST)
    if end < 0:
        if len(data) >= V1_LONGEST:
            raise BadRequest("the PROXY header is longer than 107 bytes")
        return None
    found = V1.fullmatch(data[: end + 1])
    if found is None:
        raise BadRequest("the PROXY header is malformed")
    family, source, target, port, target_port = found.groups()
    if family is None:
        return Header(end + 1, None)
    kind = socket.AF_INET if family == b"TCP4" else socket.AF_INET6
    try:
        address = socket.inet_ntop(kind, socket.inet_pton(kind, source.decode("ascii")))
        socket.inet_pton(kind, target.decode("ascii"))
    except OSError:
        raise BadRequest("the PROXY header has a malformed address") from None
    if int(port) > 65535 or int(target_port) > 65535:
        raise BadRequest("the PROXY header has a port beyond 65535")
    return Header(end + 1, (address, str(int(port))))


def _version_2(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family, length = struct.unpack_from("!BBH", data, 12)
    if command not in (0x20, 0x21):
        raise BadRequest("the PROXY header is of an unknown version or command")
    size = 16 + length
    if size > V2_LONGEST:
        raise BadRequest(f"the PROXY header is longer than {V2_LONGEST} bytes")
    if len(data) < size:
        return None
    if command == 0x20 or family not in V2_ADDRESSES:  # LOCAL, or a family whose addresses mean nothing here
        return Header(size, None)
    kind, width = V2_ADDRESSES[family]
    if length < 2 * width + 4:
        raise BadRequest("the PROXY header is shorter than its addresses")
    (port,) = struct.unpack_from("!H", data, 16 + 2 * width)
    return Header(size, (socket.inet_ntop(kind, data[16 : 16 + width]), str(port)))
