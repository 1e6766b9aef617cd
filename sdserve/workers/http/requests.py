"""From the bytes that come in to a request, and from an answer that is over to the next one.

How a request is answered in between is a worker class's own.
"""

import select
from time import monotonic

from sdserve.http.connection import State
from sdserve.http.errors import HTTPError
from sdserve.http.request import RequestReader
from sdserve.http.writer import ClientGone
from sdserve.process.counters import FIRST_BOUND
from sdserve.workers.base import Worker
from sdserve.workers.http.client import HEADS, RECEIVE, C
from sdserve.workers.http.clients import BODY, CALL, FLUSH, HEAD, LINGER, PREFACE, READ, Clients
from sdserve.workers.http.exchange import Exchange
from sdserve.workers.options import Options

USUAL = "200 OK"  # answers of this kind are counted at the lowest cost


class RequestClients(Clients[C]):
    """Clients whose requests are read here, and answered by `exchange`."""

    def __init__(
        self, worker: Worker, options: Options, epoll: select.epoll, exchange: Exchange[C], reader: RequestReader
    ) -> None:
        super().__init__(epoll, options, worker.log, worker.not_polling, worker.cell.end, worker.counters)
        self._exchange = exchange
        self._reader = reader

    def event(self, client: C, mask: int) -> bool:
        """A client is ready. False when the loop is another thread's meanwhile."""
        phase = client.phase
        if phase is CALL or phase is FLUSH or client.queued:
            return self.between(client, mask)
        try:
            data = client.sock.recv(HEADS if phase is HEAD else RECEIVE)
        except BlockingIOError:
            self.flush_between(client)
            return True
        except OSError:
            self.left(client)
            return True
        if not data:
            self.left(client)
            return True
        if phase is not HEAD:
            if phase is LINGER:
                return True
            if phase is PREFACE:
                return not self.read_preface(client, data) or self.advance(client, monotonic())
            if phase is READ and client.arrival is not None:
                client.arrival.received(len(data), monotonic())
        client.conn.receive(data)
        return self.advance(client, monotonic())

    def whole_body(self, client: C) -> bytes | None:
        """All of a request's body where it came with its head, or is there behind what one buffer had room for."""
        conn = client.conn
        whole = conn.whole_body()
        if whole is None and len(conn.buffered) >= HEADS and 0 < (missing := conn.missing) <= RECEIVE:
            try:
                data = client.sock.recv(missing)
            except OSError:
                return None  # whatever it is, epoll will report it
            if len(data) == missing:
                return conn.last_of_body(data)
            conn.receive(data)
        return whole

    def left(self, client: C) -> None:
        """A client has closed its connection, or broken it, while no application had its request."""
        if client.phase is BODY and client.request is not None:
            seconds = monotonic() - client.began
            self._exchange.left(client, seconds)
            self.tally("", seconds)
        self.close(client)

    def between(self, client: C, mask: int) -> bool:
        """A client is ready whose request is being answered, or that waits for its turn."""
        raise NotImplementedError

    def advance(self, client: C, now: float) -> bool:
        """Goes on with what was received, up to one answered request. False when the loop is another thread's."""
        raise NotImplementedError

    def flush_between(self, client: C) -> None:
        """Waits for more of a head or body. What was sent meanwhile leaves when there is room for it."""
        if client.unsent is not None:
            try:
                done = client.flush()
            except ClientGone:
                self.close(client)
                return
            if done and client.phase is BODY:  # it was 100 Continue: the client is asked for its body only now
                client.began = monotonic()
                self.begin_body(client)
                return
        self.wait(client)

    def begin_body(self, client: C) -> None:
        """The client was asked for its body."""

    def await_head(self, client: C, now: float) -> None:
        """A head is not complete."""
        conn = client.conn
        if conn.state is State.CLOSED:
            self.close(client)
            return
        if conn.buffered and client.last:  # the first bytes of the next request; before the first one, accept counts
            client.began = now
            client.last = 0.0
            self.set_deadline(client, now, self._times.head)
        self.wait(client)

    def done(self, client: C, now: float) -> None:
        """The client has all of its answer: its next request may come."""
        self.size += client.sent
        seconds = now - client.started
        if client.status == USUAL and seconds <= FIRST_BOUND:
            self.count += 1
            self.spent += seconds
        else:
            self.tally(client.status, seconds)
        client.forget()
        if client.body is not None:
            client.forget_body()
        if client.close_after:
            self.end(client)
        elif client.conn.buffered:
            self.pipelined(client, now)
        else:
            self.keep(client, now)

    def refuse(self, client: C, error: HTTPError, now: float) -> None:
        self._exchange.refuse(client, error, now)
        self.called(client, now)
        client.close_after = True
        client.sent = 0
        self.answered(client, now)

    def answered(self, client: C, now: float) -> None:
        """An answer is under way, as far as its client has room."""
        raise NotImplementedError

    def complain(self, client: C, error: Exception) -> None:
        self._exchange.complain(self._log.warning, "%s: %s", client.peer, error)
