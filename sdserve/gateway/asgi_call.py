"""One call of an ASGI application, as its worker knows it: what it has received, and what has become of its client.

What was received is the worker's to move: see `Host`. What the application sends is asgi.py's.
"""

from asyncio import AbstractEventLoop, Future
from typing import Any, Protocol

from sdserve.gateway.answer import OVER, Answer, Sink
from sdserve.http.connection import Connection, State
from sdserve.http.errors import HTTPError
from sdserve.http.request import Request
from sdserve.http.response import HeadWriter
from sdserve.http.writer import ClientGone
from sdserve.log import Logger

Message = dict[str, Any]
ENOUGH = 65536  # bytes of a body that wait for the application
HAS_ALL = "it has its answer, and has closed its connection"
BODY = State.BODY


class Disconnected(ClientGone):
    """The client has gone: there is nobody to send to."""


class Peer(Sink, Protocol):
    """The client of a call, as it reads from it."""

    conn: Connection

    @property
    def owed(self) -> int:
        """Bytes that the client has not taken of what was sent."""

    def send_continue(self) -> None:
        """Asks a client that waits for that to send its body."""

    def received(self, data: bytes, now: float) -> bool:
        """Bytes of HTTP have come; whether they are of the body."""

    def has_news(self) -> bool:
        """Whether something has come that was not read yet."""


class Host(Protocol):
    """Who has the sockets: is told what a call needs, and moves its client."""

    loop: AbstractEventLoop

    def wants_body(self, call: "Call") -> None:
        """The application waits for more of the body."""

    def wants_room(self, call: "Call") -> None:
        """The client has not taken all that was sent."""

    def in_pieces(self, call: "Call") -> Sink:
        """Where its answer goes, which is sent in pieces."""

    def lost(self, call: "Call", why: ClientGone) -> None:
        """Sending has failed: the client has gone."""

    def refused(self, call: "Call", error: HTTPError) -> None:
        """The request's body is at fault."""

    def cuts(self, call: "Call") -> None:
        """Its answer ends in the middle: so does its connection."""

    def completed(self, call: "Call") -> None:
        """All of the answer was sent, or waits for its client."""

    def ended(self, call: "Call") -> None:
        """Its task is over, which has outlasted its first step: whoever waits for that may go on."""


class Call(Answer):
    """One request and its answer. `whole` is the request's body if all of it is there, else None: it arrives."""

    began = 0.0  # monotonic seconds
    gone = False  # the client has; there is nobody to receive from or to send to
    half_closed = False  # the client sends nothing more: it has gone, or it has only said so, and reads
    told = False  # the application has heard that its client has gone
    cancelled = False  # by the worker
    waits = False  # the application waits for more of the body

    def __init__(
        self, heads: HeadWriter, peer: Peer, request: Request, log: Logger, host: Host, whole: bytes | None
    ) -> None:
        self.heads = heads  # as in Answer, without its call in each request
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

    def arrived(self, data: bytes, now: float) -> bool:
        """Bytes have come. True if that has ended it, or changes when something is due. Raises ClientGone."""
        if self.client.received(data, now):
            self.news()
        return False

    def end_of_client(self) -> None:
        """The client will send nothing more. An application that waits for its end hears that it has gone; any other
        may go on answering. Raises ClientGone where nobody may, or the client has all that it has asked for."""
        if self.has_all():
            raise ClientGone(HAS_ALL)
        self.half_closed = True
        self.news()

    def has_all(self) -> bool:
        """Whether nothing is left to send, if the client asks for nothing more: the answer has no body, and no request
        has come behind its own that is to be answered."""
        if not (self.head_sent and self.bodyless) or self.client.owed:
            return False
        return not (self.keep_alive and self.client.conn.buffered)

    def refuse(self) -> None:
        """The request is at fault, and the worker itself has answered it."""
        self.let_go()
        self.gone = self.told = True

    def let_go(self) -> None:
        self._sink = OVER  # as in Answer, without its call in each request
        self.complete = True
        if self.error is not None:
            self.error = None
        self.client = None
        if self._bells:
            self.news()

    def reads(self) -> bool:
        """Whether more is to be read from the client: one buffer of what waits is enough."""
        if self.client is None:
            return False
        conn = self.client.conn
        return conn.held < ENOUGH if conn.state is BODY else not conn.buffered

    def leave(self, now: float) -> None:
        """The worker leaves, and waits no longer for what may last for ever: a body of unknown length does. Raises
        ClientGone."""
        if self.head_sent and not self.complete and self.response_length is None:
            self._host.cuts(self)

    def finish(self, error: BaseException | None, now: float) -> bool:
        """The handler is over, and its answer is not complete: whether that is in order. Raises ClientGone."""
        return False

    # --- what a call has that goes on when HTTP is over; others have nothing of it ------------------------------------

    @property
    def ended(self) -> bool:
        """Whether the connection is to be closed once all was sent."""
        return False

    def goes_on(self) -> bool:
        """Whether `arrived(b"")` has something to do, in its turn."""
        return False

    def kept(self, data: bytes, now: float) -> bool:
        """Bytes have come that take long to look at, perhaps: whether they are kept until it goes on."""
        return False

    def next_due(self, untaken: float) -> float:
        """When to look at the client again: if it has not taken what it was sent, at `untaken`."""
        return untaken

    def expires(self, now: float) -> bool:
        """What `next_due` has said is over; false if that was not about the call. Raises ClientGone."""
        return False

    def farewell(self, now: float) -> None:
        """Its connection is about to be closed. Raises ClientGone."""

    # ------------------------------------------------------------------------------------------------------------------

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
