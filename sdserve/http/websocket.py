"""One WebSocket, server side, without I/O (RFC 6455, and RFC 7692 for compression).

handshake.py judges the request. From `accept` on bytes go in by `receive`, and messages come out: str, bytes, and at
last one `Closed`. What the protocol itself has to say meanwhile (pongs, the answer to a close) is in `data_to_send`.
Once `ended` is set, the connection is to be closed as soon as everything was sent.

The library `websockets` knows the protocol. Nearly all frames are whole messages, though, and for these there is a
short path that costs a tenth: it takes whole, final, masked data frames without extensions, between two messages.
Whatever is different goes to the library, one frame at a time, so that the next ordinary one takes the short path
again. What comes out does not depend on which of the two reads a frame, nor on how the bytes were split.

A peer decides how much work its bytes are: frames may be empty, compressed ones become a thousand times as long. So one
`receive` does a bounded part of it, and leaves the rest for the next (`waits`); a message has so many frames at most.
"""

import codecs
import logging
from collections.abc import Callable, Iterable

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, ProtocolError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from sdserve.http.closing import Closed
from sdserve.http.errors import BadRequest, IllegalMove, InvalidResponse
from sdserve.http.handshake import TOKEN, Handshake
from sdserve.http.response import HeadWriter

try:
    from websockets.speedups import apply_mask
except ImportError:  # installed without a compiler
    from websockets.utils import apply_mask

TEXT, BINARY = 0x81, 0x82  # the first byte of a message in one frame
REASON = 123  # bytes of a close frame behind its code
ENDLESS = 1 << 64  # bytes: more than a frame can have
WORK = 256  # that one `receive` does by the library: a frame is 1 of it, and each UNIT bytes of a message 1 more
UNIT = 4096
FRAGMENTS = 1000  # frames that a message may have, and one more for each FRAGMENT bytes that it may have
FRAGMENT = 64
NOT_MINIMAL = -1
# 28 kB for each connection, where zlib's own defaults take 95.
DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)

_HEADS = [bytes((TEXT, size)) for size in range(126)]
UTF8 = codecs.getincrementaldecoder("utf-8")
_MESSAGES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


Event = str | bytes | Closed
Data = bytes | bytearray | memoryview


class _Protocol(ServerProtocol):
    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            # To close between the fragments of a message is no fault. cur_size is what websockets 14 and 15 call it.
            self.current_size = self.cur_size = None
        super().recv_frame(frame)


class _FaultsOnly(logging.LoggerAdapter[logging.Logger]):
    """What the library logs is for the access log, except for its own faults."""

    def isEnabledFor(self, level: int) -> bool:
        return level >= logging.ERROR and super().isEnabledFor(level)


_log = _FaultsOnly(logging.getLogger("sdserve.error"), {})


def frame_size(data: bytes, at: int) -> int:
    """Bytes of the frame that begins in `data` at `at`; 0 where too little of its head has arrived to know, NOT_MINIMAL
    where its length could be said in fewer bytes, or has its highest bit set (RFC 6455 section 5.2)."""
    left = len(data) - at
    if left < 2:
        return 0
    size = data[at + 1] & 0x7F
    head = 6 if data[at + 1] & 0x80 else 2
    if size < 126:
        return head + size
    digits = 2 if size == 126 else 8
    if left < 2 + digits:
        return 0
    found = int.from_bytes(data[at + 2 : at + 2 + digits], "big")
    return head + digits + found if (126 if digits == 2 else 65536) <= found < 1 << 63 else NOT_MINIMAL


def _long(data: bytes, at: int, second: int) -> tuple[int, int]:
    """Where the payload of the longer frame at `at` begins, and its size: ENDLESS for one that is not masked, whose
    length is not minimal, or too little of whose head has arrived."""
    if second == 254:
        size = data[at + 2] << 8 | data[at + 3]
        return at + 8, size if size > 125 else ENDLESS
    if second == 255 and len(data) - at > 13:
        size = int.from_bytes(data[at + 2 : at + 10], "big")
        return at + 14, size if size > 65535 else ENDLESS
    return at, ENDLESS


class WebSocket:
    """A WebSocket that begins with `accept`. `max_message` is bytes of a message after inflation, 0: no limit.

    `open` says whether messages can be sent, `ended` that only what is in `data_to_send` goes over the connection yet,
    `waits` that something of what was received was not looked at yet: `receive` is to be called again.
    """

    __slots__ = (
        "_accept",
        "_at",
        "_check",
        "_done",
        "_fragments",
        "_limit",
        "_message",
        "_missing",
        "_most",
        "_plain",
        "_protocol",
        "_rest",
        "_short",
        "_told",
        "ended",
        "open",
        "waits",
    )

    def __init__(self, handshake: Handshake, *, max_message: int = 0, compression: bool = False) -> None:
        """Raises HTTPError."""
        extensions = [DEFLATE] if compression else None
        # The state says that the library need not read the handshake, which is ours.
        self._protocol = protocol = _Protocol(
            extensions=extensions, state=State.OPEN, max_size=max_message or None, logger=_log
        )
        self._accept = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n" % handshake.accept
        try:
            headers = Headers([("Sec-WebSocket-Extensions", value) for value in handshake.extensions])
            agreed, protocol.extensions = protocol.process_extensions(headers)
        except InvalidHandshake as error:
            raise BadRequest(f"Sec-WebSocket-Extensions is malformed: {error}") from error
        if agreed is not None:
            self._accept += b"Sec-WebSocket-Extensions: %b\r\n" % agreed.encode("ascii")
        self._limit = max_message or ENDLESS
        self._most = FRAGMENTS + self._limit // FRAGMENT
        self._rest = b""  # what was not looked at yet, or the part of a frame's head that has arrived; from `_at` on
        self._at = 0
        self._done = 0  # bytes of messages that the library has given out, in this `receive`
        self._missing = 0  # bytes of the frame that the library is reading
        self._message: bytearray | None = None  # the fragments so far of a message that has not ended
        self._fragments = 0  # how many these are
        self._check: Callable[[Data, bool], str] | None = None  # of a text: it finds at once what is not UTF-8
        self._short = False  # the next frame may take the short path
        self._told = False  # `Closed` has been given out
        self.open = False
        self.ended = False
        self.waits = False

    def accept(self, heads: HeadWriter, subprotocol: str | None, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The answer that opens it. Raises InvalidResponse."""
        if self.open or self.ended:
            raise IllegalMove("a WebSocket is accepted once")
        own = self._accept
        if subprotocol is not None:
            token = subprotocol.encode(errors="replace") if isinstance(subprotocol, str) else b""
            if not TOKEN.fullmatch(token):
                raise InvalidResponse(f"subprotocol {subprotocol!r} is not a token")
            own += b"Sec-WebSocket-Protocol: %b\r\n" % token
        answer = heads.switching(own, fields)
        if answer.lower().count(b"\r\nsec-websocket-") != own.lower().count(b"\r\nsec-websocket-"):
            raise InvalidResponse("Sec-WebSocket fields are the server's; the subprotocol has a key of its own")
        self.open = True
        self._plain = self._short = not self._protocol.extensions
        return answer

    def receive(self, data: bytes, room: int = ENDLESS) -> list[Event]:
        """What was completed by the next bytes of the connection, no more than `room` messages or WORK; what follows
        the end is ignored."""
        events: list[Event] = []
        at, work = 0, WORK
        if self._rest:
            if data:
                data = self._rest[self._at :] + data
            else:
                data, at = self._rest, self._at
            self._rest, self._at, self.waits = b"", 0, False
        size = len(data)
        while at < size:
            if self._short and size - at > 5:
                length = data[at + 1]
                if 127 < length < 254:
                    length -= 128
                    body = at + 6
                else:
                    body, length = _long(data, at, length)
                end = body + length
                if end <= size and length <= self._limit:
                    first = data[at]
                    if first == TEXT:
                        try:
                            events.append(str(apply_mask(data[body:end], data[body - 4 : body]), "utf-8"))
                            at = end
                            if len(events) < room:
                                continue
                            break
                        except UnicodeDecodeError:
                            pass  # the library's way says what follows
                    elif first == BINARY:
                        events.append(apply_mask(data[body:end], data[body - 4 : body]))
                        at = end
                        if len(events) < room:
                            continue
                        break
            elif self.ended:
                break
            at = self._one_frame(data, at, events)
            work -= 1 + self._done // UNIT
            self._done = 0
            if work <= 0 or len(events) >= room:
                break
        if at < size and not self.ended:
            self._rest, self._at, self.waits = data, at, True
        return events

    def keep(self, data: bytes) -> None:
        """Bytes of the connection that `receive` is to look at later."""
        if not self.ended:
            self._rest, self._at, self.waits = self._rest[self._at :] + data, 0, True

    def send_text(self, text: str) -> bytes:
        """Raises UnicodeEncodeError for what is no Unicode text."""
        data = text.encode()
        if self._plain and len(data) < 126:
            return _HEADS[len(data)] + data
        return self._message_frame(TEXT, data)

    def send_bytes(self, data: Data) -> bytes:
        return self._message_frame(BINARY, data)

    def close(self, code: int = 1000, reason: str = "") -> bytes:
        """Begins to close; the peer is to answer. A reason that is too long is cut. Raises InvalidResponse."""
        if not self.open:
            raise IllegalMove("a WebSocket that is not open cannot be closed")
        if not isinstance(code, int):
            raise InvalidResponse(f"close code {code!r} is not a number")
        text = reason.encode(errors="replace")[:REASON].decode(errors="ignore")
        try:
            self._protocol.send_close(code, text)
        except ProtocolError as error:
            raise InvalidResponse(f"close code {code!r} may not be sent: {error}") from error
        self._closing([])
        return self.data_to_send()

    def let_go(self) -> None:
        """It is over: nothing is received any more. What the library's parser holds leads back to it, and would stay in
        memory until a garbage collection."""
        self.open = self._short = self._plain = self.waits = False
        self.ended = self._told = True
        self._rest = b""
        self._protocol.parser.close()
        self._protocol.parser_exc = None

    def data_to_send(self) -> bytes:
        """What the protocol owes the peer, once."""
        return b"".join(self._protocol.data_to_send()) if self._protocol.writes else b""

    def _message_frame(self, first: int, data: Data) -> bytes:
        if not self.open:
            raise IllegalMove("a WebSocket that is not open sends nothing")
        if self._protocol.extensions:
            (self._protocol.send_text if first == TEXT else self._protocol.send_binary)(data)
            return self.data_to_send()
        size = len(data)
        if size < 126:
            head = bytes((first, size))
        elif size < 65536:
            head = bytes((first, 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((first, 127)) + size.to_bytes(8, "big")
        return head + data

    def _one_frame(self, data: bytes, at: int, events: list[Event]) -> int:
        """Gives the library the frame that begins in `data` at `at`, or what there is of it; returns its end."""
        size = len(data)
        missing = self._missing or frame_size(data, at)
        if not missing:
            self._rest = data[at:]
            return size
        if missing < 0:
            self._protocol.fail(CloseCode.PROTOCOL_ERROR, "a length is not minimal")
            self._closing(events)
            return size
        end = min(at + missing, size)
        self._missing = missing - (end - at)
        protocol = self._protocol
        protocol.receive_data(data[at:end])
        for frame in protocol.events_received():
            if isinstance(frame, Frame) and frame.opcode in _MESSAGES:
                self._message_of(frame, events)
        self._short = not self._missing and self._message is None and self.open and not protocol.extensions
        if protocol.state is not State.OPEN:
            self._closing(events)
        return end

    def _message_of(self, frame: Frame, events: list[Event]) -> None:
        """Adds the message that a frame is, or completes."""
        data, whole = frame.data, self._message
        frame.data = b""  # the library's parser has the frame until it gets the next one
        self._done += len(data)
        try:
            if frame.opcode is not Opcode.CONT:
                if frame.fin:
                    events.append(str(data, "utf-8") if frame.opcode is Opcode.TEXT else bytes(data))
                    return
                whole = self._message = bytearray()
                self._fragments = 0
                self._check = UTF8().decode if frame.opcode is Opcode.TEXT else None
            assert whole is not None  # else it is the library that found a fault
            whole += data
            self._fragments += 1
            if self._check is not None:
                self._check(data, frame.fin)
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "a text is not UTF-8")
            return
        if frame.fin:
            events.append(bytes(whole) if self._check is None else str(whole, "utf-8"))
            self._message = self._check = None
        elif self._fragments >= self._most:
            self._protocol.fail(CloseCode.MESSAGE_TOO_BIG, f"a message has more than {self._most} frames")

    def _closing(self, events: list[Event]) -> None:
        """The library has left the state OPEN."""
        protocol = self._protocol
        self.open = self._short = self._plain = False
        self.ended = protocol.eof_sent
        if self.ended and not self._told:
            self._told = True
            self._message = self._check = None
            said = protocol.close_rcvd or protocol.close_sent
            assert said is not None  # the library ends nothing without a word
            events.append(Closed(said.code, said.reason))
