"""What calls of ASGI applications ask of their worker, and what that does to their clients.

A call (gateway/asgi_call.py) tells its host what it waits for: more of its body, room for what it sends, the end. So
the host polls its client for that, and sets by when it is due. What differs between HTTP and a WebSocket is the call's
to know. A client whose WebSocket is open stays in the phase CALL, as if its request were being answered. Its deadline
is for the next ping, the answer to a close, or a peer that takes nothing.

What becomes of a client whose socket is ready is clients.py's.
"""

import select
from asyncio import AbstractEventLoop
from collections.abc import Callable
from time import monotonic

from sdserve.gateway.answer import Sink
from sdserve.gateway.asgi_call import Call
from sdserve.gateway.asgi_websocket import WebSocketCall
from sdserve.http.connection import State
from sdserve.http.errors import HTTPError
from sdserve.http.pairs import PairsReader
from sdserve.http.writer import ClientGone
from sdserve.workers.asgi.bursts import Burst, Bursts
from sdserve.workers.asgi.client import ASGIClient
from sdserve.workers.asgi.exchange import ASGIExchange
from sdserve.workers.asgi.interest import interest
from sdserve.workers.base import Worker
from sdserve.workers.http.client import EPOLLOUT
from sdserve.workers.http.clients import CALL, CLOSED, FLUSH
from sdserve.workers.http.deadlines import NEVER, after
from sdserve.workers.http.requests import RequestClients
from sdserve.workers.options import Options

BETWEEN = State.HEAD, State.LAST  # whatever is received now belongs to the next request


class CallHost(RequestClients[ASGIClient]):
    """The clients of a worker, as their calls know them. `settle` tells the loop that something has changed outside of
    its turns."""

    _exchange: ASGIExchange

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

    # --- what it waits for --------------------------------------------------------------------------------------------

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

    # --- WebSockets ---------------------------------------------------------------------------------------------------

    @property
    def leaving(self) -> bool:
        return not self._worker.alive

    def opened(self, call: WebSocketCall) -> None:
        client = self._exchange.client_of(call)
        self._exchange.opened(client, call, monotonic())
        if early := client.conn.rest:
            call.kept(early, monotonic())  # for its turn
        client.conn.close()
        self._go_on(client, call)

    def wants_more(self, call: WebSocketCall) -> None:
        self._listen(self._exchange.client_of(call))

    def waits_anew(self, call: WebSocketCall) -> None:
        self._go_on(self._exchange.client_of(call), call)

    # --- the end of an answer -----------------------------------------------------------------------------------------

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

    def answered(self, client: ASGIClient, now: float) -> None:
        """The client has all of an answer."""
        if client.unsent is not None:  # that of a refusal
            self.enter(client, FLUSH, after(now, self._times.send))
            return
        self._exchange.answered(client)
        self.done(client, now)

    def gone(self, client: ASGIClient, why: ClientGone) -> None:
        """A client has gone during its call."""
        request = client.request
        self._log.debug("%s: %s", request.uri if request is not None else client.peer, why)
        self.close(client)

    def leaves(self, client: ASGIClient) -> None:
        """The client has gone: the application hears of it, and the rest of its answer is dropped."""
        call = client.call
        if call is not None and client.phase is not CLOSED:
            if owed := client.owed:
                call.sent = max(0, call.sent - owed)
                call.broken = True
            call.lose()
            if not call.complete:
                self._exchange.spare(call)
            self.size += call.sent
            self.tally(call.status, monotonic() - call.began)
            if call.complete:
                self._exchange.answered(client)
                client.forget()
            self._settle()

    def abandon(self, client: ASGIClient) -> None:
        if client.call is not None:
            client.call.lose()
