"""How a WebSocket ends: the codes of a close (RFC 6455 section 7.4).

Apart from websocket.py, which takes the library `websockets`: a call knows these also where that is not loaded, as
before the first WebSocket, or is not installed.
"""

from sdserve.immutable import Immutable

NORMAL, GONE, ERROR, RESTART = 1000, 1006, 1011, 1012


class Closed(Immutable):
    """The end: the code that the peer gave (1005: none), or the one that it was given for a fault of its own."""

    code: int
    reason: str = ""
