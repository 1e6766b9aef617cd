"""What happens to clients of the ASGI worker: their requests are read, and their calls fed and drained.

While the application has a request, its client is polled for more of the body, for room, and for its end. An
application that waits for the end is told at once. Any other may go on answering: a client may only have shut its
sending half. That ends when the connection is broken. Nothing is read ahead of what the application takes, except one
buffer. What calls ask for is host.py's.
"""

import select
import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from time import monotonic

from sdserve.gateway.asgi_call import Call
from sdserve.http.connection import Connection
from sdserve.http.errors import HTTPError, RequestTimedOut
from sdserve.http.writer import ClientGone
from sdserve.process.listeners import Listener
from sdserve.workers.asgi.client import ASGIClient
from sdserve.workers.asgi.exchange import ASGIExchange
from sdserve.workers.asgi.host import CallHost
from sdserve.workers.asgi.interest import News, news
from sdserve.workers.base import Worker
from sdserve.workers.http.client import EPOLLIN, EPOLLOUT, RECEIVE
from sdserve.workers.http.clients import CALL, HEAD
from sdserve.workers.http.deadlines import NEVER, Arrival
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store
from sdserve.workers.options import Options

SLOW = 0.005  # seconds: inflation makes a message of a WebSocket a thousand times as long


class ASGIClients(CallHost):
    """All open connections of a worker."""

    _slow = False  # what one has sent took long to read: what others send waits in the queue behind all the others

    def __init__(
        self,
        worker: Worker,
        options: Options,
        epoll: select.epoll,
        exchange: ASGIExchange,
        loop: AbstractEventLoop,
        settle: Callable[[], None],
    ) -> None:
        super().__init__(worker, options, epoll, exchange, loop, settle)
        self._cuts = False
        self.before_cut: Callable[[], None] = lambda: None  # hears that the time of calls is over
        self._store = Store(Quota(options.spool), worker.log.warning, options.times.send)

    def make(self, sock: socket.SocketType, listener: Listener, peer: tuple[str, str]) -> ASGIClient:
        base = self._exchange.base(listener, sock, peer)
        address = listener.address
        server = (address, None) if isinstance(address, str) else (base["SERVER_NAME"], int(base["SERVER_PORT"]))
        conn = Connection(self._reader, self._options.limits)
        return ASGIClient(sock, conn, base, peer, self._store, server)

    def between(self, client: ASGIClient, mask: int) -> bool:
        if client.phase is CALL:
            self._during_call(client, mask)
        elif client.queued:  # it goes on in its turn
            self.poll_for(client, 0)
        else:
            self._flush(client)
        return True

    def advance(self, client: ASGIClient, now: float) -> bool:
        """Goes on with what was received, up to one request."""
        client.queued = False
        if client.phase is not HEAD:
            self.goes_on(client)
            return True
        conn = client.conn
        try:
            request = conn.next_request()
        except HTTPError as error:
            self.refuse(client, error, now)
            return True
        if request is None:
            self.await_head(client, now)
            return True
        whole: bytes | None = b""
        if request.length:
            whole = self.whole_body(client)
            if whole is None:
                client.arrival = Arrival(self._times, now - client.waited)
                client.given_at = now
            client.waited = 0.0
        client.request = request
        self.called(client, now)
        try:
            self._exchange.answer(client, request, whole, now)
        except HTTPError as error:
            self._exchange.refuse_seen(client, request, error, now)
            self.answered(client, now)
        if client.phase is CALL:  # most calls are over by now
            self._listen(client)
        return True

    def goes_on(self, client: ASGIClient) -> None:
        """It is the turn of a client whose call is under way."""
        call = client.call
        if client.phase is CALL and call is not None and call.goes_on():
            self._arrived(client, call, b"")
            self._listen(client)

    def queue(self, client: ASGIClient) -> None:
        super().queue(client)
        self._settle()

    def in_turn(self, most: int) -> Iterator[ASGIClient]:
        """Those who wait for their turn, until one of them took long: whoever asks for little does not wait for all."""
        self._slow = False
        for _ in range(min(len(self.ready), most)):
            yield self.ready.popleft()
            if self._slow:
                return

    # --- while the application has the request -----------------------------------------------------------------------

    def _during_call(self, client: ASGIClient, mask: int) -> None:
        call = client.call
        assert call is not None
        polled = client.mask
        if mask & polled & EPOLLOUT:
            self._pour(client, call)
            if client.phase is not CALL:
                return
            polled = client.mask
        if mask & polled & EPOLLIN:  # as in `news`, without its cost in each event
            self._take_in(client, call)
            return
        what = news(mask, polled)
        if what is News.BYTES:
            self._take_in(client, call)
        elif what is not News.NONE and (what := news(client.reported(), polled)) is not News.NONE:
            if what is News.END:
                self._end_of(client, call)
            else:
                self.gone(client, ClientGone("it has broken its connection"))

    def _pour(self, client: ASGIClient, call: Call) -> None:
        """There is room for what was sent."""
        unsent = client.unsent
        try:
            done = client.flush()
        except ClientGone as error:
            self.gone(client, error)
            return
        if done:
            self._go_on(client, call)
        elif unsent is not None and unsent.moved:
            unsent.moved = 0
            self.set_deadline(client, monotonic(), self._times.send)
        call.news()

    def _take_in(self, client: ASGIClient, call: Call) -> None:
        """More of the body, the next request, or the client's end."""
        try:
            data = client.sock.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError as error:
            self.gone(client, ClientGone(str(error)))
            return
        if not data:
            self._end_of(client, call)
            return
        self._arrived(client, call, data)

    def _arrived(self, client: ASGIClient, call: Call, data: bytes) -> None:
        now = monotonic()
        if self._slow and data and call.kept(data, now):
            self._listen(client)
            return
        try:
            moved = call.arrived(data, now)
        except ClientGone as error:
            self.gone(client, error)
            return
        if monotonic() - now > SLOW:
            self._slow = True
        if moved:
            self._go_on(client, call)
        elif not call.reads():
            self._listen(client)

    def _end_of(self, client: ASGIClient, call: Call) -> None:
        """The client sends nothing more."""
        try:
            call.end_of_client()
        except ClientGone as error:
            self.gone(client, error)
            return
        self._exchange.spare(call)
        self._listen(client)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _flush(self, client: ASGIClient) -> None:
        unsent = client.unsent
        try:
            done = client.flush()
        except ClientGone:
            self.close(client)
            return
        now = monotonic()
        if done:
            self.called(client, now)
            self.answered(client, now)
        elif unsent is not None and unsent.moved:
            unsent.moved = 0
            self.set_deadline(client, now, self._times.send)

    def waits_for_body(self, client: ASGIClient) -> bool:
        call = client.call
        return call is not None and call.waits and client.unsent is None

    def expired(self, client: ASGIClient, now: float) -> None:
        call = client.call
        if call is not None and client.phase is CALL:
            try:
                if call.expires(now):
                    self._go_on(client, call)
                    return
            except ClientGone as error:
                self.gone(client, error)
                return
        if call is not None and call.head_sent and client.unsent is not None:
            self.cuts(call)
        elif client.phase is not CALL or call is None or client.unsent is not None:
            super().expired(client, now)
        elif call.waits and client.arrival is not None and client.arrival.due() <= now and not client.has_news():
            self.refused(call, RequestTimedOut("the body is slower than body_min_rate or body_timeout allow"))
        else:
            client.deadline = client.arrival.due() if call.waits and client.arrival is not None else NEVER

    def end_streams(self) -> None:
        """Ends the answers under way that may last for ever: their calls hear that the client has gone."""
        self._tell_calls(lambda call, now: call.leave(now))

    def _tell_calls(self, what: Callable[[Call, float], None]) -> None:
        now = monotonic()
        for client in self:
            if (call := client.call) is not None:
                try:
                    what(call, now)
                except ClientGone as error:
                    self.gone(client, error)

    def cut(self) -> bool:
        """Closes all connections and cancels what still runs; returns whether anything does."""
        self._tell_calls(lambda call, now: call.farewell(now))
        if not self._cuts:
            self._cuts = True
            self.before_cut()
        for client in self:
            self.close(client)
        return self._exchange.cancel()
