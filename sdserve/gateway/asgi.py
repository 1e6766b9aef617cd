"""The answer to one HTTP request of an ASGI application: what it sends (HTTP & WebSocket ASGI Message Format 2.5).

The head of an answer is held until its first body message: it leaves with that in one write, and until then it can
still become a 500. Which message may come when is a table, behind `HTTPCall`. A message that has to wait for the client
is not overtaken by one that another task sends meanwhile. Nothing is sent to a client that has gone: `send` raises
`Disconnected`, an OSError, as 2.4 wants. What the application receives is asgi_call.py's.
"""

import os
from asyncio import Lock
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from sdserve.gateway.asgi_call import HAS_ALL, Call, Disconnected, Message
from sdserve.gateway.files import FileWrapper
from sdserve.http.errors import HTTPError, InvalidResponse
from sdserve.http.request import Request
from sdserve.http.response import HeadWriter
from sdserve.http.writer import ClientGone

# What a message does: it returns whether the answer is complete, or a coroutine that does so once it has waited.
Moved = Coroutine[Any, Any, bool] | bool | None
Move = Callable[[Any, Message], Moved]
Moves = Mapping[str, Move]
HIGH = 65536  # bytes that a client has not taken, beyond which `send` waits for it
BLOCK = 262144  # bytes of a file that can only be read, at a time
TOLD = 4  # faults that a log line repeats
STATUSES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


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


class HTTPCall(Call):
    """One request and its answer."""

    _fresh = False  # the head is held, and the next message may be the whole body: the quick way
    _hinted = False  # early hints came
    _trailers: bytes | None = None  # their lines, None if there are to be none
    _moves: Moves  # what may be sent now: a row of the table below
    _turn: Lock | None = None  # whoever sends has it, once a message has had to wait
    _faults: tuple[str, ...] = ()  # what `send` has raised: the application may have caught it, and said nothing

    # --- sending ----------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Raises Disconnected once the client has gone, InvalidResponse or RuntimeError for what breaks the rules."""
        turn = self._turn
        if turn is not None:
            await turn.acquire()
        try:
            kind = message["type"]
            if self.gone:
                raise Disconnected("the client has gone")
            if self.complete:
                return  # what follows the end is ignored
            if self._fresh and kind == "http.response.body" and not message.get("more_body", False):
                data = message.get("body", b"")
                self._send_whole(self.whole(data if type(data) is bytes else as_bytes(data)))
                ends: Moved = True
            elif (move := self._moves.get(kind)) is None:
                raise RuntimeError(f"{kind!r} is not a message of an HTTP response")
            elif (ends := move(self, message)) and ends is not True:
                if turn is None:
                    turn = self._turn = Lock()
                    await turn.acquire()
                ends = await ends
        except Disconnected:
            raise
        except ClientGone as error:
            self._host.lost(self, error)
            raise Disconnected(str(error)) from error
        except HTTPError as error:
            self._host.refused(self, error)
            raise Disconnected("the request is malformed") from error
        except Exception as error:
            self._fault(error)
            raise
        finally:
            if turn is not None:
                turn.release()
        if ends:
            self._host.completed(self)
        elif self.half_closed and self.has_all():  # it closed before it had
            self._host.lost(self, ClientGone(HAS_ALL))

    def _fault(self, error: Exception) -> None:
        said = f"send raised {type(error).__name__}: {error}"
        if said not in self._faults and len(self._faults) < TOLD:
            self._faults = (*self._faults, said)

    def shortfall(self) -> str:
        """For the log: what the answer lacks of an application that has returned."""
        if self.head_sent:
            said = "answered in part only"
        elif self.head is not None:
            said = "returned without an answer: it sent a start, and no body"
        elif self._faults or self._hinted:
            said = "returned without an answer: it sent nothing that begins one"
        else:
            said = "returned without an answer: it sent nothing"
        return "; ".join((said, ", ".join(self._faults))) if self._faults else said

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

    def _body(self, message: Message) -> Moved:
        data = message.get("body", b"")
        if type(data) is not bytes:
            data = as_bytes(data)
        more = message.get("more_body", False)
        if data and self._sink.full:
            return self._body_later(data, more)
        if not more:
            return self._last(data)
        if data:
            self._piece(data)
        return False

    async def _body_later(self, data: bytes, more: bool) -> bool:
        await self._room(len(data))
        if not more:
            return self._last(data)
        self._piece(data)
        return False

    def _last(self, data: bytes) -> bool:
        """The last piece of the body; whether the answer is complete by that."""
        if self._streams and not self.head_sent and self._trailers is None:
            self._settle()
            self._send_whole(self.whole(data))
            return True
        if data or not self.head_sent:
            self._piece(data)
        return self._last_of_body()

    def _piece(self, data: bytes) -> None:
        """One more piece of the body."""
        self._fresh = False
        if not self.head_sent:
            self._before_head(-1)
            self._sink = self._host.in_pieces(self)
        sink, parts = self._sink, self.piece(data)
        if not isinstance(parts, bytes):
            sink.send_parts(parts, whole=True)
        elif parts:  # of an answer to HEAD there is nothing
            sink.send(parts)
        self.sent += self.size
        if sink.full:
            self._host.wants_room(self)

    def _before_head(self, total: int) -> None:
        """Whether the connection goes on is said by the head, before the body has ended. `total` as in `start`."""
        if self._streams:
            self._settle()
        if total < 0 and self.request.method == "HEAD" and self.head is not None and self.head.length < 0:
            self.keep_alive = False  # it has all by then; the next request would wait for an end that may never come

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
            if self._sink.full:
                await self._room(len(data))
            self._piece(data)
        if not self.head_sent:
            self._piece(b"")

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
            if self._trailers is not None:
                total = -1
            self._before_head(total)
            head = self.start(total)
        allowed = self.bounded(count)
        if self.chunked and allowed:
            head += b"%x\r\n" % allowed
        if head and not allowed:
            sink.send(head)
        elif allowed:
            sink.send_file(head, fd, offset, allowed)
            self.sent += allowed
            try:
                await self._room(HIGH)
            except BaseException:
                if not self.gone and sink.full:  # the descriptor may be closed now, and its number mean another file
                    self._host.lost(self, ClientGone("its file was not sent to the end"))
                raise
            if self.chunked:
                sink.send(b"\r\n")

    def _trail(self, message: Message) -> bool:
        """http.response.trailers: sent if the client has said that it wants them (RFC 9110 section 6.5.1)."""
        if self.chunked and _wants_trailers(self.request):
            self._trailers = (self._trailers or b"") + self.heads.lines(message.get("headers", ()))
        if message.get("more_trailers", False):
            return False
        self._finish()
        return True

    def _hint(self, message: Message) -> None:
        """http.response.early_hint: 103 (RFC 8297), which HTTP/1.0 does not know."""
        self._hinted = True
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
