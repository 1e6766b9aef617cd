"""What happens to clients of the ASGI worker: their requests are read, and their calls fed and drained.

What differs between HTTP and a WebSocket is the call's to know (gateway/asgi_call.py). A client whose WebSocket is open
stays in the phase CALL, as if its request were being answered. It is polled for messages as long as there is room for
them. Its deadline is for the next ping, the answer to a close, or a peer that takes nothing. A WebSocket has no timer
of its own.

While the application has a request, its client is polled for more of the body, for room, and for its end. An
application that waits for the end is told at once. Any other may go on answering: a client may only have shut its
sending half. That ends when the connection is broken. Nothing is read ahead of what the application takes, except one
buffer.
"""

import select
import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from time import monotonic

from sdserve.gateway.answer import Sink
from sdserve.gateway.asgi_call import Call
from sdserve.gateway.asgi_websocket import WebSocketCall
from sdserve.http.connection import Connection, State
from sdserve.http.errors import HTTPError, RequestTimedOut
from sdserve.http.pairs import PairsReader
from sdserve.http.writer import ClientGone
from sdserve.process.listeners import Listener
from sdserve.workers.asgi.bursts import Burst, Bursts
from sdserve.workers.asgi.client import ASGIClient
from sdserve.workers.asgi.exchange import ASGIExchange
from sdserve.workers.asgi.interest import News, interest, news
from sdserve.workers.base import Worker
from sdserve.workers.http.client import EPOLLIN, EPOLLOUT, RECEIVE
from sdserve.workers.http.clients import CALL, CLOSED, FLUSH, HEAD
from sdserve.workers.http.deadlines import NEVER, Arrival, after
from sdserve.workers.http.requests import RequestClients
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store
from sdserve.workers.options import Options

BETWEEN = State.HEAD, State.LAST  # whatever is received now belongs to the next request
SLOW = 0.005  # seconds: inflation makes a message of a WebSocket a thousand times as long


class ASGIClients(RequestClients[ASGIClient]):
    """All open connections of a worker, and the host of their calls. `settle` tells the loop that something has changed
    outside of its turns."""

    _exchange: ASGIExchange
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
        super().__init__(worker, options, epoll, exchange, PairsReader(options.limits, exchange.environs.names))
        self._worker = worker
        self.loop = loop
        self._settle = settle
        self.bursts = Bursts(self, settle)
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
        if mask & polled & EPOLLIN:  # as `news` has it, but for its cost in each event
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

    def _go_on(self, client: ASGIClient, call: Call) -> None:
        """Waits for what comes next, or ends the connection once all was sent."""
        if client.phase is not CALL or client.call is not call:
            return
        now = monotonic()
        if call.ended:
            call.complete = True
            self.has_sent(client, now)
            return
        owed = client.unsent is not None
        client.deadline = call.next_due(after(now, self._times.send) if owed else self._body_due(client, call, now))
        self.look_by(client.deadline)
        self._listen(client)
        self._settle()

    def _end_of(self, client: ASGIClient, call: Call) -> None:
        """The client sends nothing more."""
        try:
            call.end_of_client()
        except ClientGone as error:
            self.gone(client, error)
            return
        self._exchange.spare(call)
        self._listen(client)

    def _listen(self, client: ASGIClient) -> None:
        """Sets what a client is polled for during its call, and nothing if that is over: the client may have been
        closed, and its descriptor be another's. What has come, and nobody has looked at yet, is queued for its turn."""
        call = client.call
        if client.phase is not CALL or call is None:
            return
        between, owed = client.conn.state in BETWEEN, client.unsent is not None
        try:
            self.poll_for(client, interest(call.half_closed, call.reads(), between, owed))
        except OSError:  # not the application's fault, which may have called this
            self.fail(client)
        if call.goes_on() and client.phase is CALL and not client.queued:
            self.queue(client)

    # --- the host of calls --------------------------------------------------------------------------------------------

    def in_pieces(self, call: Call) -> Sink:
        client: ASGIClient = call.client
        client.burst = burst = Burst(call, client, self.bursts)
        return burst

    def wants_body(self, call: Call) -> None:
        client: ASGIClient = call.client
        now = monotonic()
        if not call.waits:
            client.given_at = now
        if client.unsent is not None:
            self.wants_room(call)
            return
        client.deadline = self._body_due(client, call, now)
        if call.waits:
            self.look_by(client.deadline)
            self._settle()
        self._listen(client)

    def wants_room(self, call: Call) -> None:
        client: ASGIClient = call.client
        if client.deadline == NEVER or not client.mask & EPOLLOUT:  # else it is waited for already
            now = monotonic()
            client.given_at = client.given_at or now
            self.set_deadline(client, now, self._times.send)
            self._settle()
        self._listen(client)

    def _body_due(self, client: ASGIClient, call: Call, now: float) -> float:
        """When more of the body is due, if the application waits for that. A client that has not taken what it was sent
        may have to before it sends more: the time of its body does not run meanwhile."""
        arrival = client.arrival
        if not call.waits or arrival is None or client.unsent is not None:
            return NEVER
        if client.given_at:  # until now we waited for the application, or for room: from now on for the body
            arrival.excuse(now - client.given_at)
            client.given_at = 0.0
        return arrival.due()

    @property
    def leaving(self) -> bool:
        return not self._worker.alive

    def opened(self, call: WebSocketCall) -> None:
        client = self._exchange.client_of(call)
        self._exchange.opened(client, call, monotonic())
        early = client.conn.rest
        client.conn.close()
        self._go_on(client, call)
        if early:
            self._arrived(client, call, early)

    def wants_more(self, call: WebSocketCall) -> None:
        self._listen(self._exchange.client_of(call))

    def waits_anew(self, call: WebSocketCall) -> None:
        self._go_on(self._exchange.client_of(call), call)

    def lost(self, call: Call, why: ClientGone) -> None:
        self.gone(self._exchange.client_of(call), why)

    def refused(self, call: Call, error: HTTPError) -> None:
        client = self._exchange.client_of(call)
        now = monotonic()
        if call.head_sent:
            self._exchange.complain(self._log.info, "%s: its answer is cut: %s", call.request.uri, error)
            self.cuts(call)
            return
        self._exchange.refuse_call(client, call, error, now)
        client.close_after = True
        client.sent = 0
        self.has_sent(client, now)

    def cuts(self, call: Call) -> None:
        """Closes a connection in the middle of an answer, so that its client notices."""
        client = self._exchange.client_of(call)
        if client.burst is not None:
            self.bursts.release_one(client.burst)
        if not call.chunked and call.response_length is None:
            client.reset_at_close()
        self.close(client)

    def completed(self, call: Call) -> None:
        self.has_sent(call.client, monotonic())

    def has_sent(self, client: ASGIClient, now: float) -> None:
        """All of an answer was sent, or waits for the client to take it."""
        if (burst := client.burst) is not None:
            try:
                burst.release()
            except ClientGone as error:
                self.gone(client, error)
                return
            client.burst = None
        try:
            if client.unsent is None:
                self.answered(client, now)
            else:
                self.enter(client, FLUSH, after(now, self._times.send))
        except OSError:  # as above
            self.fail(client)
        self._settle()

    def ended(self, call: Call) -> None:
        self._settle()

    # --- ends ---------------------------------------------------------------------------------------------------------

    def answered(self, client: ASGIClient, now: float) -> None:
        """The client has all of an answer."""
        if client.unsent is not None:  # that of a refusal
            self.enter(client, FLUSH, after(now, self._times.send))
            return
        self._exchange.answered(client)
        self.done(client, now)

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

    def gone(self, client: ASGIClient, why: ClientGone) -> None:
        """A client has gone during its call."""
        request = client.request
        self._log.debug("%s: %s", request.uri if request is not None else client.peer, why)
        self.close(client)

    def leaves(self, client: ASGIClient) -> None:
        """The client has gone: the application hears of it, and the rest of its answer is dropped."""
        call = client.call
        if call is not None and client.phase is not CLOSED:
            call.sent = max(0, call.sent - client.owed)
            call.broken = call.broken or client.unsent is not None
            call.lose()
            if not call.complete:
                self._exchange.spare(call)
            self.tally(call.status, monotonic() - call.began)
            if call.complete:
                self._exchange.answered(client)
                client.forget()
            self._settle()

    def waits_for_body(self, client: ASGIClient) -> bool:
        call = client.call
        return call is not None and call.waits and client.unsent is None

    def abandon(self, client: ASGIClient) -> None:
        if client.call is not None:
            client.call.lose()

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
