"""What happens to clients of the WSGI worker: receive, parse, call, send, and what is due when nothing happens.

Nothing waits for one client. Heads and bodies are collected as they come, responses that the peer does not take are
kept and sent when it does, and every phase has a deadline. Methods that may call the application return False when the
lead was lost meanwhile: then the client, and everything else here, belongs to another thread.
"""

import select
import socket
from collections.abc import Callable
from functools import partial
from sys import getrefcount
from time import monotonic

from sdserve.http.connection import Connection
from sdserve.http.errors import HTTPError
from sdserve.http.request import Request, RequestReader
from sdserve.http.writer import ClientGone
from sdserve.process.listeners import Listener
from sdserve.workers.base import Worker
from sdserve.workers.http.body import IN_MEMORY, Body, WholeBody
from sdserve.workers.http.client import Phase
from sdserve.workers.http.clients import BODY, CALL, CLOSED, FLUSH, HEAD, READ
from sdserve.workers.http.deadlines import NEVER, Arrival, after
from sdserve.workers.http.requests import RequestClients
from sdserve.workers.http.write_buffer import Store
from sdserve.workers.options import Options
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.exchange import WSGIExchange
from sdserve.workers.wsgi.input import TooSlow
from sdserve.workers.wsgi.leader_followers import LeaderFollowers
from sdserve.workers.wsgi.takeover import UNKEPT, expose

OnTake = Callable[[WSGIClient], None]
WAITING = (FLUSH, READ)  # for its client, perhaps in the middle of a response


class WSGIClients(RequestClients[WSGIClient]):
    """What becomes of all open connections of a loop.

    `exchange` answers requests, through `lead` where there are several threads; `store` is where responses wait for
    their clients; `on_take` hears of connections that applications take over.
    """

    _exchange: WSGIExchange

    def __init__(
        self,
        worker: Worker,
        options: Options,
        epoll: select.epoll,
        exchange: WSGIExchange,
        store: Store,
        on_take: OnTake,
    ) -> None:
        super().__init__(worker, options, epoll, exchange, RequestReader(options.limits, exchange.environs.names))
        self._store = store
        self._on_take = on_take
        self._buffering = options.request_buffering
        self._lead: LeaderFollowers | None = None
        self._owed: list[WSGIClient] = []  # at the end: whose responses the application has to end

    def use(self, lead: LeaderFollowers) -> None:
        """Calls the application through `lead` from now on."""
        self._lead = lead

    def make(self, sock: socket.SocketType, listener: Listener, peer: tuple[str, str]) -> WSGIClient:
        base = self._exchange.base(listener, sock, peer)
        conn = Connection(self._reader, self._options.limits, base.copy)
        client = WSGIClient(sock, conn, base, peer, self._store)
        expose(client, self._on_take)
        return client

    def between(self, client: WSGIClient, mask: int) -> bool:
        if client.phase is FLUSH and not client.queued:
            return self._flush(client)
        self.poll_for(client, 0)  # another thread has it, or it goes on in its turn: later
        return True

    def advance(self, client: WSGIClient, now: float) -> bool:
        """Goes on with what was received, up to one answered request. False when the lead was lost."""
        conn, phase = client.conn, client.phase
        client.queued = False
        if phase is not HEAD and phase is not BODY:
            return self._resume(client, now)
        try:
            if phase is HEAD:
                if getrefcount(client.handle) != UNKEPT:
                    expose(client, self._on_take)
                request = conn.next_request()
                if request is None:
                    self.await_head(client, now)
                    return True
                if not request.length:
                    return self._serve(client, request, now)
                if (whole := self.whole_body(client)) is not None:
                    client.body = WholeBody(whole)
                    client.waited = 0.0
                    return self._serve(client, request, now)
                if self._begins_early(client, request):
                    client.arrival = Arrival(self._times, now)
                    return self._serve(client, request, now)
                if request.expect and not conn.buffered:
                    client.send_continue()
                client.request = request
                client.body = Body(self._store.disk)
                client.began = now - client.waited
                client.waited = 0.0
            body = client.body
            assert isinstance(body, Body) and client.request is not None
            before = body.size
            while data := conn.read_body():
                body.append(data)
        except HTTPError as error:
            self.refuse(client, error, now)
            return True
        except ClientGone:
            self.left(client)
            return True
        if data is None:
            return self._serve(client, client.request, now)
        if client.arrival is None:
            self.begin_body(client)
        if client.arrival is not None and body.size > before:
            client.arrival.received(body.size - before, now)
        self.flush_between(client)
        return True

    def _resume(self, client: WSGIClient, now: float) -> bool:
        """Goes on with a response in its turn. False when the lead was lost."""
        if client.phase is FLUSH:
            return self._flush(client)
        if client.phase is CLOSED and client.reply is None:
            return True
        return self._go_on(client, now)

    def begin_body(self, client: WSGIClient) -> None:
        client.arrival = Arrival(self._times, client.began)
        self._receive_body(client, BODY)

    def _begins_early(self, client: WSGIClient, request: Request) -> bool:
        """Whether the application gets a request before its body."""
        length, buffering = request.length, self._buffering
        if length < 0 or buffering == "on" or not (request.expect or (buffering == "off" and length > IN_MEMORY)):
            return False  # of a chunked body frameworks want to know the length
        return self._exchange.begins_early(client)

    def _receive_body(self, client: WSGIClient, phase: Phase) -> None:
        """Waits for more of a body until it is too slow."""
        assert client.arrival is not None
        self.enter(client, phase, client.arrival.due())

    def _serve(self, client: WSGIClient, request: Request, now: float) -> bool:
        """Calls the application and goes on with the client. False when the lead was lost."""
        client.request = request
        self.called(client, now)
        if self._lead is None:
            self._exchange.answer(client, request, now)
        elif not self._lead.call(client, request, now):
            return False
        if client.unsent is None and client.reply is None and client.phase is CALL:
            self.done(client, monotonic())
        else:
            self.answered(client, monotonic())
        return True

    def abandon(self, client: WSGIClient) -> None:
        if client.phase not in WAITING:  # else the application has not ended what it began, and hears of it
            self._exchange.forget(client)
        client.response = None

    def broken(self, client: WSGIClient) -> None:
        """Logs the exception in progress, which came out of what answers requests: the connection must end."""
        request = client.request
        what = f"{request.method} {request.uri}" if request is not None else "a request"
        self._log.exception("Error of the server while it answered %s; the connection is closed", what)
        client.close_after = client.reset = True
        client.status, client.started = "500", client.called  # it gets none, but it is one
        self._exchange.forget(client)
        client.forget_unsent()

    def answered(self, client: WSGIClient, now: float) -> None:
        """The application has been called for a request, or has gone on with it: as far as its client has room."""
        if client.phase is not CALL:
            if client.reply is None:
                if client.phase is CLOSED and client.request is not None:  # its client has gone, and it is ended
                    self.size += client.sent
                    self.tally(client.status, now - client.started)
                client.forget()
            return
        if client.unsent is not None or client.reply is not None:
            self._suspend(client, now)
            return
        self.done(client, now)

    def _suspend(self, client: WSGIClient, now: float) -> None:
        """A response goes on later: when there is more of its body, when its client has room, or in its turn."""
        if client.reply is not None and client.reply.waits:
            self._receive_body(client, READ)
        elif client.unsent is not None:
            self.enter(client, FLUSH, after(now, self._times.send))  # for each bit that the client takes
        else:  # it has had its slice of time
            self.enter(client, FLUSH, NEVER)
            self.queue(client)

    def _flush(self, client: WSGIClient) -> bool:
        """Sends what is left of a response, and goes on with it after that. False when the lead was lost."""
        unsent, now = client.unsent, monotonic()
        try:
            done = client.flush()
        except ClientGone:
            self.close(client)
            return True
        if done:
            return self._go_on(client, now)
        if unsent is not None and unsent.moved:
            unsent.moved = 0
            self.set_deadline(client, now, self._times.send)
        return True

    def _go_on(self, client: WSGIClient, now: float) -> bool:
        """Goes on with a response that waited for its client, or whose client has gone. False: the lead was lost.

        What belongs to the application is done in the thread that called it.
        """
        if client.phase is CLOSED:
            self.turn(now)
        else:
            self.called(client, now)
        reply = client.reply
        if reply is not None:
            if self._lead is not None and (reply.fiber is not None or self._exchange.needs_its_thread(reply)):
                return self._lead.resume(client, reply.thread, partial(self._exchange.go_on, client, reply))
            self._exchange.go_on(client, reply)
        self.answered(client, monotonic())
        return True

    def leaves(self, client: WSGIClient) -> None:
        """A response that was on its way is ended in its turn: the application may be called."""
        reply = client.reply
        if reply is not None and client.phase in WAITING:
            reply.lost = client.unsent.left if client.unsent is not None else 0
            if not client.queued:
                self.queue(client)

    def cut(self) -> bool:
        """PEP 3333: close() is called however a response ends."""
        super().cut()
        self._owed = [client for client in (*self._owed, *self.ready) if client.reply is not None]
        return bool(self._owed)

    def body_is_due(self, client: WSGIClient, now: float) -> None:
        assert client.arrival is not None
        if client.arrival.due() > now:
            self._receive_body(client, client.phase)
            return
        error = TooSlow("the body is slower than body_min_rate or body_timeout allow")
        if client.phase is BODY:
            self.refuse(client, error, now)
        elif client.reply is not None and client.reply.incoming is not None:
            client.reply.incoming.fail(error)
            client.deadline = NEVER
            self.queue(client)
