"""A WebSocket's client that is nothing but a socket: its opening, its frames."""

import socket
import zlib

from websockets.frames import Frame, Opcode

OPENING = (
    "GET {} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"


def masked(data: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    return Frame(opcode, data).serialize(mask=True)


def compressed(data: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    """A message as RFC 7692 has it, for a WebSocket that was opened with DEFLATE."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
    frame = masked((deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4], opcode)
    return bytes((frame[0] | 0x40,)) + frame[1:]


def exactly(sock: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        piece = sock.recv(size - len(got))
        assert piece, f"the server closed after {len(got)} of {size} bytes"
        got += piece
    return bytes(got)
