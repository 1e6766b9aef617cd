"""Is this request the opening of a WebSocket, and can it be accepted? (RFC 6455 section 4.2.1)

A request that asks for another protocol (h2c), or one of HTTP/1.0, is a plain request, whose Upgrade is ignored (RFC
9110 section 7.8). One that asks for a WebSocket and does it wrong is refused before the application hears of it.
"""

import base64
import binascii
import hashlib
import re

from sdserve.http.errors import BadRequest, MethodNotAllowed, UpgradeRequired
from sdserve.http.request import Request

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
KEY, VERSION, SUBPROTOCOL, EXTENSIONS = (
    b"sec-websocket-" + name for name in (b"key", b"version", b"protocol", b"extensions")
)


def is_asked(request: Request) -> bool:
    """Whether a request wants to become a WebSocket. To be asked where `request.upgrade` is set, which is rare."""
    return request.minor == 1 and b"websocket" in _listed([request.upgrade.lower().encode("latin-1")])


class Handshake:
    """A judged opening: `accept` is the answer to its key, `subprotocols` are the client's offers in its order of
    preference, `extensions` the values of its Sec-WebSocket-Extensions, which nobody has read yet."""

    __slots__ = ("accept", "extensions", "subprotocols")

    def __init__(self, request: Request) -> None:
        """Raises HTTPError."""
        if request.method != "GET":
            raise MethodNotAllowed(f"a WebSocket is asked for by {request.method}, not by GET")
        if request.length:
            raise BadRequest("a WebSocket is asked for by a request with a body")
        found: dict[bytes, list[bytes]] = {}
        for name, value in request.fields:
            found.setdefault(name.lower(), []).append(value)
        if b"upgrade" not in [option.lower() for option in _listed(found.get(b"connection", []))]:
            raise BadRequest("Upgrade: websocket without Connection: upgrade, which a proxy may have dropped")
        if (version := found.get(VERSION, [])) != [b"13"]:
            raise UpgradeRequired(
                f"Sec-WebSocket-Version is {b', '.join(version).decode('latin-1') or 'missing'}, not 13"
            )
        self.accept = _answer(found.get(KEY, []))
        offers = _listed(found.get(SUBPROTOCOL, []))
        if not all(map(TOKEN.fullmatch, offers)):
            raise BadRequest("Sec-WebSocket-Protocol is not a list of tokens")
        self.subprotocols = [offer.decode("ascii") for offer in offers]
        self.extensions = [value.decode("latin-1") for value in found.get(EXTENSIONS, [])]


def _listed(values: list[bytes]) -> list[bytes]:
    """The elements of a field that is a list, by however many lines it came; empty ones do not count (RFC 9110 section
    5.6.1.2)."""
    return [element for value in values for part in value.split(b",") if (element := part.strip(b" \t"))]


def _answer(keys: list[bytes]) -> bytes:
    """Sec-WebSocket-Accept for Sec-WebSocket-Key: 16 bytes in base64."""
    if len(keys) != 1:
        raise BadRequest(f"{len(keys) or 'no'} Sec-WebSocket-Key")
    try:
        key = base64.b64decode(keys[0], validate=True)
    except binascii.Error as error:
        raise BadRequest("Sec-WebSocket-Key is not base64") from error
    if len(key) != 16:
        raise BadRequest("Sec-WebSocket-Key is not 16 bytes")
    return base64.b64encode(hashlib.sha1(keys[0] + GUID, usedforsecurity=False).digest())
