"""One HTTP request of an ASGI application: what it receives, what it sends (HTTP & WebSocket ASGI Message Format 2.5).

The head of an answer is held until its first body message: it leaves with that in one write, and until then it can
still become a 500. Which message may come when is a table, behind `HTTPCall`. Nothing is sent to a client that has
gone: `send` raises `Disconnected`, an OSError, as 2.4 wants. What was received and sent is the worker's to move:
see `Host`.
"""

import os
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Protocol

from sdserve.gateway.answer import Answer, Sink
from sdserve.gateway.files import FileWrapper
from sdserve.http.connection import Connection, State
from sdserve.http.errors import HTTPError, InvalidResponse
from sdserve.http.request import Request
from sdserve.http.response import HeadWriter
from sdserve.http.writer import ClientGone
from sdserve.log import Logger

Message = dict[str, Any]
# What a message does. A coroutine returns whether the answer is complete.
Move = Callable[[Any, Message], Coroutine[Any, Any, bool] | None]
Moves = Mapping[str, Move]
HIGH = 65536  # bytes that a client has not taken, beyond which `send` waits for it
ENOUGH = 65536  # bytes of a body that wait for the application
BLOCK = 262144  # bytes of a file that can only be read, at a time
STATUSES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
BODY = State.BODY


class Disconnected(ClientGone):
    """The client has gone: there is nobody to send to."""


class AsgiHeads(HeadWriter):
    """Heads of what ASGI applications say: a status is a number, a field is a pair of byte strings."""

    def _status(self, status: Any) -> tuple[int, bytes]:
        if not isinstance(status, int):
            raise InvalidResponse(f"status {status!r} is not an int")
        if not 200 <= status <= 999:
            raise InvalidResponse(f"status {status:d} is not an application's to send: use 200 to 999")
        known = self._statuses[int(status)] = super()._status(status_line(status))  # type: ignore[index]
        return known

    def _text(self, field: Any) -> tuple[str, str]:
        name, value = field
        if not (isinstance(name, bytes) and isinstance(value, bytes)):
            raise InvalidResponse(f"header {field!r} is not a pair of byte strings")
        return name.decode("latin-1"), value.decode("latin-1")


def status_line(status: int) -> str:
    """A status with the reason that belongs to it, as in `200 OK`."""
    return STATUSES.get(status) or f"{status:d} "


def out_of_order(when: str) -> Move:
    """The move of a message that breaks the rules: raises RuntimeError, which says `when` it was sent."""

    def refuse(call: "HTTPCall", message: Message) -> None:
        raise RuntimeError(f"{message['type']} was sent {when}")

    return refuse


def ignored(call: "HTTPCall", message: Message) -> None:
    """The move of a message that nobody needs any more."""


class Peer(Sink, Protocol):
    """The client of a call, as it reads from it."""

    conn: Connection

    @property
    def owed(self) -> int:
        """Bytes that the client has not taken of what was sent."""

    def send_continue(self) -> None:
        """Asks a client that waits for that to send its body."""


class Host(Protocol):
    """Who has the sockets: is told what a call needs, and moves its client."""

    loop: AbstractEventLoop

    def wants_body(self, call: "HTTPCall") -> None:
        """The application waits for more of the body."""

    def wants_room(self, call: "HTTPCall") -> None:
        """The client has not taken all that was sent."""

    def lost(self, call: "HTTPCall", why: ClientGone) -> None:
        """Sending has failed: the client has gone."""

    def refused(self, call: "HTTPCall", error: HTTPError) -> None:
        """The request's body is at fault."""

    def completed(self, call: "HTTPCall") -> None:
        """All of the answer was sent, or waits for its client."""

    def ended(self, call: "HTTPCall") -> None:
        """Its task is over, which has outlasted its first step: whoever waits for that may go on."""


class HTTPCall(Answer):
    """One request and its answer. `whole` is the request's body if all of it is there, else None: it arrives."""

    began = 0.0  # monotonic seconds
    gone = False  # the client has; there is nobody to receive from or to send to
    half_closed = False  # the client sends nothing more: it has gone, or it has only said so, and reads
    told = False  # the application has heard that its client has gone
    cancelled = False  # by the worker
    waits = False  # the application waits for more of the body
    _fresh = False  # the head is held, and the next message may be the whole body: the quick way
    _trailers: bytes | None = None  # their lines, None if there are to be none
    _moves: Moves  # what may be sent now: a row of the table below

    def __init__(
        self, heads: HeadWriter, peer: Peer, request: Request, log: Logger, host: Host, whole: bytes | None
    ) -> None:
        self.heads = heads  # as Answer has it, but for a call in each request
        self.request = request
        self.keep_alive = request.keep_alive
        self._sink = peer
        self._log = log
        self.client: Any = peer  # None once all is over
        self._host = host
        self._arrived = whole  # what has arrived of the body, and was not given out
        self._streams = whole is None  # the body arrives while the application has the request
        self.reading = True  # the application has not had all of the body
        self._expected = request.expect
        self._bells: list[Future[None]] = []

    # --- what the worker says ---------------------------------------------------------------------------------------

    def news(self) -> None:
        """Something has changed that the application may wait for: more of the body, room, the end."""
        bells, self._bells = self._bells, []
        for bell in bells:
            if not bell.done():
                bell.set_result(None)

    @property
    def over(self) -> bool:
        """Whether the client has gone. The application knows it, or will when it receives or sends."""
        return self.gone

    @property
    def forgotten(self) -> bool:
        """Whether its client is done with it."""
        return self.client is None

    def lose(self) -> None:
        """The client has gone, or is given up: the application hears of it when it receives or sends."""
        self.gone = True
        if not self.complete:
            self.broken = True
        self.news()

    def end_of_client(self) -> None:
        """The client will send nothing more. An application that waits for its end hears that it has gone; any other
        may go on answering."""
        self.half_closed = True
        self.news()

    def refuse(self) -> None:
        """The request is at fault, and the worker itself has answered it."""
        self.let_go()
        self.gone = self.told = True

    def let_go(self) -> None:
        super().let_go()
        self.client = None
        if self._bells:
            self.news()

    def reads(self) -> bool:
        """Whether more is to be read from the client: one buffer of what waits is enough."""
        if self.client is None:
            return False
        conn = self.client.conn
        return conn.held < ENOUGH if conn.state is BODY else not conn.buffered

    async def _news(self) -> None:
        bell = self._host.loop.create_future()
        self._bells.append(bell)
        try:
            await bell
        finally:
            if bell in self._bells:  # whoever waited was cancelled
                self._bells.remove(bell)
                self.waits = False

    # --- receiving --------------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """http.request as long as there is more of the body, then http.disconnect once the client has gone."""
        while not (self.gone or self.complete):
            if self.reading and (body := self._next()) is not None:
                return {"type": "http.request", "body": body, "more_body": self.reading}
            if self.half_closed:
                self._host.lost(self, ClientGone("it has closed its connection"))
            elif not (self.gone or self.complete):
                await self._news()
        self.told = self.told or not self.complete
        return {"type": "http.disconnect"}

    def _next(self) -> bytes | None:
        """What has arrived of the body, None if nothing has yet. `reading` says whether more will come."""
        try:
            body = self._received()
            if body is None and self._expected:
                self._expected = False
                if not self.head_sent and self.client is not None:
                    self.client.send_continue()
        except HTTPError as error:
            self._host.refused(self, error)
            return None
        except ClientGone as error:
            self._host.lost(self, error)
            return None
        self._arrived = None
        self.waits = body is None
        if self.reading:
            self._host.wants_body(self)
        return body

    def _received(self) -> bytes | None:
        """As `_next`, without its effects. Raises HTTPError."""
        peer, body = self.client, self._arrived
        if peer is not None and peer.conn.state is BODY:
            conn = peer.conn
            pieces = [body] if body else []
            while conn.state is BODY and (data := conn.read_body()):
                pieces.append(data)
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces) if pieces else None
            self.reading = conn.state is BODY
            if body is None and not self.reading:
                body = b""
        else:
            self.reading = False
        return body

    def _settle(self) -> None:
        """Before the head is made: a connection cannot go on if nobody has read the request's body to its end."""
        if self.reading and self.client.conn.state is BODY:
            self._arrived = self._received()
            if self.reading:
                self.keep_alive = False
            else:
                self.reading = True  # it is all there, and not given out

    # --- sending ----------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Raises Disconnected once the client has gone, InvalidResponse or RuntimeError for what breaks the rules."""
        kind = message["type"]
        if self.gone:
            raise Disconnected("the client has gone")
        if self.complete:
            return  # what follows the end is ignored
        try:
            if self._fresh and kind == "http.response.body" and not message.get("more_body", False):
                data = message.get("body", b"")
                self._send_whole(self.whole(data if type(data) is bytes else as_bytes(data)))
                ends = True
            elif (move := self._moves.get(kind)) is None:
                raise RuntimeError(f"{kind!r} is not a message of an HTTP response")
            elif (sending := move(self, message)) is None:
                return
            else:
                ends = await sending
        except Disconnected:
            raise
        except ClientGone as error:
            self._host.lost(self, error)
            raise Disconnected(str(error)) from error
        except HTTPError as error:
            self._host.refused(self, error)
            raise Disconnected("the request is malformed") from error
        if ends:
            self._host.completed(self)

    def _begin(self, message: Message) -> None:
        status, fields = message["status"], list(message.get("headers", ()))  # the application's own may change
        if not isinstance(status, int):  # a float may be equal to one that is known
            raise InvalidResponse(f"status {status!r} is not an int")
        self.head = self.heads.head(status, fields)  # type: ignore[arg-type]
        self.status = status_line(status)
        self.headers = fields
        if message.get("trailers", False):
            self._trailers = b""
            self._moves = TRAILERS_ANNOUNCED
        else:
            self._fresh = not self._streams
            self._moves = STARTED

    async def _body(self, message: Message) -> bool:
        data = message.get("body", b"")
        if type(data) is not bytes:
            data = as_bytes(data)
        if message.get("more_body", False):
            if data:
                await self._piece(data)
            return False
        if self._streams and not self.head_sent and self._trailers is None:
            self._settle()
            self._send_whole(self.whole(data))
            return True
        if data or not self.head_sent:
            await self._piece(data)
        return self._last_of_body()

    async def _piece(self, data: bytes) -> None:
        """One more piece of the body, when there is room for it."""
        self._fresh = False
        if self._sink.full:
            await self._room(len(data))
        if not self.head_sent and self._streams:
            self._settle()
        parts = self.piece(data)
        if isinstance(parts, bytes):
            self._sink.send(parts)
        else:
            self._sink.send_parts(parts, whole=True)
        self.sent += self.size
        if self._sink.full:
            self._host.wants_room(self)

    async def _room(self, size: int) -> None:
        """Waits until the client has taken so much that there is room for `size` bytes more."""
        while self.client is not None and (owed := self.client.owed) and owed + size > HIGH:
            self._host.wants_room(self)
            await self._news()
            if self.gone:
                raise Disconnected("the client has gone")

    async def _path(self, message: Message) -> bool:
        """http.response.pathsend: the whole body is a file."""
        with open(message["path"], "rb", buffering=0) as file:
            await self._file_or_bytes(file)
        return self._last_of_body()

    async def _file_or_bytes(self, file: Any) -> None:
        region = FileWrapper(file).region()
        if region is not None:
            await self._region(*region, total=region[2])
            return
        while data := file.read(BLOCK):  # of /proc, for one
            await self._piece(data)
        if not self.head_sent:
            await self._piece(b"")

    async def _zerocopy(self, message: Message) -> bool:
        """http.response.zerocopysend: the next piece of the body is one of a file."""
        file = message["file"]
        fd = file if isinstance(file, int) else file.fileno()
        offset, count, more = message.get("offset"), message.get("count"), message.get("more_body", False)
        start = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
        if count is None:
            count = max(0, os.fstat(fd).st_size - start)
        await self._region(fd, start, count, total=-1 if more or self.head_sent else count)
        if offset is None:
            os.lseek(fd, start + count, os.SEEK_SET)
        return not more and self._last_of_body()

    async def _region(self, fd: int, offset: int, count: int, total: int) -> None:
        """Sends bytes of a file, and returns when they have left: the descriptor is not ours. `total` as in `start`."""
        self._fresh = False
        if self._sink.full:
            await self._room(HIGH)
        sink, head = self._sink, b""
        if not self.head_sent:
            if self._streams:
                self._settle()
            head = self.start(-1 if self._trailers is not None else total)
        allowed = self.bounded(count)
        if self.chunked and allowed:
            head += b"%x\r\n" % allowed
        if head:
            sink.send(head)
        if allowed:
            sink.send_file(fd, offset, allowed)
            self.sent += allowed
            try:
                await self._room(HIGH)
            except BaseException:
                if not self.gone and sink.full:  # the descriptor may be closed now, and its number mean another file
                    self._host.lost(self, ClientGone("its file was not sent to the end"))
                raise
            if self.chunked:
                sink.send(b"\r\n")

    async def _trail(self, message: Message) -> bool:
        """http.response.trailers: sent if the client has said that it wants them (RFC 9110 section 6.5.1)."""
        if self.chunked and _wants_trailers(self.request):
            self._trailers = (self._trailers or b"") + self.heads.lines(message.get("headers", ()))
        if message.get("more_trailers", False):
            return False
        self._finish()
        return True

    def _hint(self, message: Message) -> None:
        """http.response.early_hint: 103 (RFC 8297), which HTTP/1.0 does not know."""
        if self.request.minor and not self.head_sent:
            self._sink.send(self.heads.interim("103 Early Hints", [(b"Link", link) for link in message["links"]]))

    def _last_of_body(self) -> bool:
        if self._trailers is None:
            self._finish()
            return True
        self._moves = BODY_SENT
        return False

    def end(self) -> bytes:
        last = super().end()
        return b"0\r\n%b\r\n" % self._trailers if self._trailers and last else last


# Which message may come when, and what it does, by how far the answer has come.

NEW: Moves = {
    "http.response.start": HTTPCall._begin,
    "http.response.early_hint": HTTPCall._hint,
    "http.response.body": out_of_order("before http.response.start"),
    "http.response.pathsend": out_of_order("before http.response.start"),
    "http.response.zerocopysend": out_of_order("before http.response.start"),
    "http.response.trailers": out_of_order("before http.response.start"),
}
STARTED: Moves = {
    "http.response.start": out_of_order("twice"),
    "http.response.early_hint": HTTPCall._hint,
    "http.response.body": HTTPCall._body,
    "http.response.pathsend": HTTPCall._path,
    "http.response.zerocopysend": HTTPCall._zerocopy,
    "http.response.trailers": out_of_order("and http.response.start has not announced it"),
}
TRAILERS_ANNOUNCED: Moves = {
    **STARTED,
    "http.response.trailers": out_of_order("before the end of the body"),
}
BODY_SENT: Moves = {  # and trailers are due; without them the answer is complete by then
    "http.response.start": out_of_order("twice"),
    "http.response.early_hint": ignored,
    "http.response.body": ignored,
    "http.response.pathsend": ignored,
    "http.response.zerocopysend": ignored,
    "http.response.trailers": HTTPCall._trail,
}
HTTPCall._moves = NEW


def as_bytes(data: Any) -> bytes:
    """What an application sends as bytes. Raises TypeError."""
    if isinstance(data, str | int):
        raise TypeError(f"{type(data).__name__} was sent where bytes are")
    return bytes(memoryview(data))


def _wants_trailers(request: Request) -> bool:
    said = b",".join(value for name, value in request.fields if name.lower() == b"te")
    return any(each.partition(b";")[0].strip().lower() == b"trailers" for each in said.split(b","))
