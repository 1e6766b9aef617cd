"""One WebSocket of an ASGI application: its scope's messages (HTTP & WebSocket ASGI Message Format 2.5).

Until the application accepts, it is a request like others: it can be answered over HTTP, by a denial of the
application's own, or by 403 if it just closes. From `websocket.accept` on, http/websocket.py says what comes, and this
keeps it for the application, within bounds: nothing is read beyond them. What the application hears at the end:

    the peer closed                  its code, 1005 where it gave none
    the peer went, or is gone        1006
    the peer broke the protocol      the code that it got for that
    the worker leaves                1012, to both

Once that is true `send` raises Disconnected, and `receive` says so behind the messages that came before. A handler that
returns closes with 1000, one that raises with 1011. Which message it may send when is a table, at the end.
"""

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from sdserve.gateway.asgi import HIGH, STARTED, HTTPCall, Moves, as_bytes, out_of_order
from sdserve.gateway.asgi_call import Disconnected, Host, Message, Peer
from sdserve.http.closing import ERROR, GONE, NORMAL, RESTART, Closed
from sdserve.http.errors import InvalidResponse, Unavailable
from sdserve.http.heartbeat import PING, Beat, Heartbeat
from sdserve.http.request import Request
from sdserve.http.response import Head, HeadWriter
from sdserve.http.writer import ClientGone
from sdserve.log import Logger

if TYPE_CHECKING:
    from sdserve.http.websocket import WebSocket

QUEUED = 1 << 20  # bytes of messages that wait for the application
CLOSING = 10.0  # seconds in which a peer answers that was sent a close


class WebSocketHost(Host, Protocol):
    @property
    def leaving(self) -> bool:
        """Whether the worker leaves: it opens nothing any more."""

    def opened(self, call: "WebSocketCall") -> None:
        """It was accepted."""

    def wants_more(self, call: "WebSocketCall") -> None:
        """There is room for messages again."""

    def waits_anew(self, call: "WebSocketCall") -> None:
        """It waits for something else than before: for the answer to a close, or for a peer that takes nothing."""


class WebSocketCall(HTTPCall):
    """`most` is how many messages may wait for the application."""

    upgraded = False  # it was accepted: the connection is a WebSocket
    _host: WebSocketHost
    _order: Moves  # what the application may send now: a row of the table below

    def __init__(
        self,
        heads: HeadWriter,
        peer: Peer,
        request: Request,
        log: Logger,
        host: WebSocketHost,
        socket: "WebSocket",
        heart: Heartbeat,
        most: int,
    ) -> None:
        super().__init__(heads, peer, request, log, host, b"")
        self.keep_alive = False  # whatever becomes of it, nothing follows
        self._socket = socket
        self._heart = heart
        self._most = most
        self._queue: deque[str | bytes] = deque()
        self._queued = 0  # bytes, or characters, in it
        self._paused = False  # nothing is read, because so much waits in it
        self._asked = False  # the application has had websocket.connect
        self._closed: Closed | None = None  # what the application hears at the end
        self.closes = False  # the application has closed it, or the worker
        self._close_by = 0.0

    # --- what the worker says ---------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return self._socket.ended

    @property
    def over(self) -> bool:
        return self._closed is not None

    def reads(self) -> bool:
        """Whether more is to be read: not while as much waits as may, for the application or for the peer."""
        if not self.upgraded:
            return super().reads()
        return self._listens() and not self._socket.waits

    def goes_on(self) -> bool:
        """What has come is decoded in turns, while there is room."""
        return self._socket.waits and self._listens()

    def _listens(self) -> bool:
        return not self._paused and (self.client is None or self.client.owed <= HIGH)

    def arrived(self, data: bytes, now: float) -> bool:
        if not self.upgraded:
            return super().arrived(data, now)
        self._heart.heard = now
        socket = self._socket
        events = socket.receive(data, self._most - len(self._queue))
        for event in events:
            if isinstance(event, Closed):
                self._closed = self._closed or event
            elif not self.closes:
                self._queue.append(event)
                self._queued += len(event)
        self._paused = self._paused or (self._is_full() and not self.closes)
        full = self._sink.full  # by then: what comes in gives nobody more time to take what goes out
        if answer := socket.data_to_send():
            self._sink.send(answer)
        if events:
            self.news()
        return socket.ended or bool(self._sink.full and not full)

    def kept(self, data: bytes, now: float) -> bool:
        if self.upgraded:
            self._heart.heard = now
            self._socket.keep(data)
        return self.upgraded

    def end_of_client(self) -> None:
        """A peer that cannot answer cannot be told anything."""
        raise ClientGone("it has closed its connection")

    def next_due(self, untaken: float) -> float:
        """Besides: of the next ping, or of the answer to a close."""
        if not self.upgraded or (self._sink.full and not self.closes):
            return untaken
        return min(untaken, self._close_by if self.closes else self._heart.due())

    def expires(self, now: float) -> bool:
        """Pings the peer if need be, unless it is given up."""
        if not self.upgraded:
            return False
        if self._sink.full or not self._is_there(now):
            raise ClientGone("it takes nothing, or answers no ping")
        return True

    def _is_there(self, now: float) -> bool:
        if self.closes:
            return now < self._close_by
        if not self.reads() or self.client.has_news():
            self._heart.heard = now  # we are the ones who do not listen
        what = self._heart.beat(now)
        if what is Beat.PING:
            self._sink.send(PING)
        return what is not Beat.GONE

    def leave(self, now: float) -> None:
        if self.upgraded:
            self.farewell(now)
        elif self.head is None and not self.complete:
            self._host.refused(self, Unavailable("a WebSocket was not accepted before its worker left"))
        else:
            super().leave(now)

    def farewell(self, now: float) -> None:
        """Closes with 1012, if that can be said yet."""
        if self._socket.open:
            self._close(RESTART, "", now)
            self._closed = self._closed or Closed(RESTART)
            self.news()

    def finish(self, error: BaseException | None, now: float) -> bool:
        if not self.upgraded:
            return super().finish(error, now)
        if not self.gone:
            if self._socket.open:
                self._close(NORMAL if error is None else ERROR, "", now)
            self.complete = True  # all but the answer of its peer
        return True

    def lose(self) -> None:
        self._closed = self._closed or Closed(GONE)
        self._socket.let_go()
        super().lose()

    def let_go(self) -> None:
        self._closed = self._closed or Closed(GONE)
        self._socket.let_go()
        super().let_go()

    # --- receiving --------------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """websocket.connect, then messages, then websocket.disconnect whenever it is asked for."""
        if not self._asked:
            self._asked = True
            return {"type": "websocket.connect"}
        while not self._queue:
            if (closed := self._closed) is not None:
                return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
            await self._news()
        event = self._queue.popleft()
        self._queued -= len(event)
        if self._paused and self._has_room():
            self._paused = False
            if self.client is not None:
                self._host.wants_more(self)
        if isinstance(event, str):
            return {"type": "websocket.receive", "text": event}
        return {"type": "websocket.receive", "bytes": event}

    def _is_full(self) -> bool:
        return len(self._queue) >= self._most or self._queued >= QUEUED

    def _has_room(self) -> bool:
        """Whether there is enough room to read on, so that this does not happen for each message."""
        return len(self._queue) * 2 <= self._most and self._queued * 2 <= QUEUED

    # --- sending ----------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """As for a response. Raises RuntimeError for what is out of order, as after the application's own close."""
        kind = message["type"]
        if kind == "websocket.send" and self._socket.open:
            text, data = _content(message)
            if self._sink.full:
                await self._until_room(len(text or data))
            self._put(self._socket.send_text(text) if data is None else self._socket.send_bytes(data))
            return
        if self._closed is not None:
            raise Disconnected(f"the WebSocket was closed: {self._closed.code}")
        try:
            if (move := self._order.get(kind)) is None:
                raise RuntimeError(f"{kind!r} is not a message of a WebSocket")
            if (moved := move(self, message)) and moved is not True:
                await moved
        except Disconnected:
            raise
        except ClientGone as error:
            self._host.lost(self, error)
            raise Disconnected(str(error)) from error
        except Exception as error:
            self._fault(error)
            raise

    def _accept(self, message: Message) -> None:
        if self._host.leaving:
            self._closed = Closed(RESTART)
            self._host.refused(self, Unavailable("a WebSocket was accepted while the worker leaves"))
            return
        fields = list(message.get("headers") or ())
        answer = self._socket.accept(self.heads, message.get("subprotocol"), fields)
        self.status, self.head, self.headers = "101 Switching Protocols", Head(101), fields
        self.head_sent = self.upgraded = self.upgrade = True
        self._order = ACCEPTED
        self._sink.send(answer)
        self._host.opened(self)

    async def _answer(self, message: Message) -> bool:
        """Over HTTP, by what the application says."""
        await super().send({**message, "type": message["type"].removeprefix("websocket.")})
        if self.head is not None:
            self._order = DENIED
        return self.complete

    def _deny(self, message: Message) -> None:
        self.closes = True
        self._order = CLOSED
        self.fail(self.heads.plain(403, "Forbidden"), 403)
        self._host.completed(self)

    def _close_as_told(self, message: Message) -> None:
        code, reason = message.get("code", NORMAL), message.get("reason")
        self._close(NORMAL if code is None else code, reason or "", self._host.loop.time())

    def _close(self, code: Any, reason: Any, now: float) -> None:
        data = self._socket.close(code, reason)
        self.closes = True
        self._order = CLOSED
        self._close_by = now + CLOSING
        self._queue.clear()
        self._queued = 0
        self._paused = False
        self._sink.send(data)
        self._host.waits_anew(self)

    def _put(self, frame: bytes) -> None:
        """Sends a frame with a message in it."""
        full = self._sink.full
        try:
            self._sink.send(frame)
        except ClientGone as error:
            self._host.lost(self, error)
            raise Disconnected(str(error)) from error
        self.sent += len(frame)
        if not full and self._sink.full:
            self._host.waits_anew(self)

    async def _until_room(self, size: int) -> None:
        """Waits as `_room` does. The deadline of a peer that takes nothing was set when it stopped taking."""
        while self._socket.open and self.client is not None and (owed := self.client.owed) and owed + size > HIGH:
            await self._news()
        if not self._socket.open:
            closed = self._closed or Closed(GONE)
            raise Disconnected(f"the WebSocket was closed: {closed.code}")


# Which message may come when, and what it does. While a WebSocket is open, `send` itself does websocket.send.

_ANSWERS: Moves = {f"websocket.{kind}": WebSocketCall._answer for kind in STARTED}
NEW: Moves = {
    "websocket.accept": WebSocketCall._accept,
    "websocket.send": out_of_order("before it was accepted"),
    "websocket.close": WebSocketCall._deny,
    **_ANSWERS,
}
DENIED: Moves = {
    "websocket.accept": out_of_order("after it was denied"),
    "websocket.send": out_of_order("after it was denied"),
    "websocket.close": out_of_order("after it was denied"),
    **_ANSWERS,
}
ACCEPTED: Moves = {
    "websocket.accept": out_of_order("after it was accepted"),
    "websocket.send": out_of_order("after it was closed"),
    "websocket.close": WebSocketCall._close_as_told,
    **dict.fromkeys(_ANSWERS, out_of_order("after it was accepted")),
}
CLOSED: Moves = dict.fromkeys(ACCEPTED, out_of_order("after the application had closed its WebSocket"))
WebSocketCall._order = NEW


def _content(message: Message) -> tuple[Any, Any]:
    """The text and the bytes of a message to be sent, one of which is None. Raises InvalidResponse or TypeError."""
    text, data = message.get("text"), message.get("bytes")
    if (text is None) == (data is None):
        raise InvalidResponse("websocket.send has both text and bytes, or none of them")
    if data is None:
        if not isinstance(text, str):
            raise InvalidResponse(f"the text of websocket.send is {type(text).__name__}, not str")
    elif type(data) is not bytes:
        data = as_bytes(data)
    return text, data
