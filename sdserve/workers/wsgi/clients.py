"""What happens to clients: receive, parse, call, send, and what is due when nothing happens.

Nothing waits for one client. Heads and bodies are collected as they come, responses that the peer does not take are
kept and sent when it does, and every phase has a deadline (register.py). Methods that may call the application return
False when the lead was lost meanwhile: then the client, and everything else here, belongs to another thread.
"""

import select
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import nsmallest
from time import monotonic
from typing import TYPE_CHECKING

from sdserve.gateway.response import ClientGone
from sdserve.http.connection import State
from sdserve.http.errors import BadRequest, HTTPError, RequestTimedOut
from sdserve.http.limits import Times
from sdserve.http.request import Request
from sdserve.workers.http.client import EPOLLIN, EPOLLOUT, HEADS, NEVER, RECEIVE, WANTS, Client, Phase
from sdserve.workers.http.clients import Clients
from sdserve.workers.http.spool import Quota
from sdserve.workers.wsgi.body import IN_MEMORY, Arrival, Body
from sdserve.workers.wsgi.input import TooSlow

if TYPE_CHECKING:
    from sdserve.log import Logger
    from sdserve.process.adoption import HandedConnection
    from sdserve.workers.http.acceptor import Acceptor
    from sdserve.workers.wsgi.exchange import Exchange
    from sdserve.workers.wsgi.leader_followers import LeaderFollowers

LATE = 1.0  # seconds more for what has arrived in time and was not read in time
SETTLED = 1.0  # seconds in which the next request of a connection is expected, for want of room or not
ROOM = 32  # idle connections that are closed at a time, at most, for want of room
MARK = 0.1  # seconds that the busy mark may be older than the request it is for
PREFACE, HEAD, BODY, CALL, FLUSH, LINGER, CLOSED, READ = (
    *(Phase.PREFACE, Phase.HEAD, Phase.BODY),
    *(Phase.CALL, Phase.FLUSH, Phase.LINGER, Phase.CLOSED, Phase.READ),
)
READING = (PREFACE, HEAD, BODY, READ)
WAITING = (FLUSH, READ)  # for its client, perhaps in the middle of a response


class WSGIClients(Clients):
    """What becomes of all open connections of a loop.

    `exchange` answers requests, through `lead` where there are several threads; `busy(now)` marks the process busy;
    `disk` is what the temporary files of the process may take; `buffering`: on, auto, off, which bodies come first.
    """

    def __init__(
        self,
        epoll: select.epoll,
        times: Times,
        acceptor: "Acceptor",
        exchange: "Exchange",
        log: "Logger",
        busy: Callable[[float], None],
        disk: Quota,
        buffering: str,
    ) -> None:
        super().__init__(epoll)
        self._times = times
        self._keepalive = times.keepalive
        self._acceptor = acceptor
        self._exchange = exchange
        self._log = log
        self._busy = busy
        self._disk = disk
        self._buffering = buffering
        self._lead: LeaderFollowers | None = None
        self._mark_again = 0.0  # when the busy mark must be written next
        self.marked_at = 0.0
        self.ready: deque[Client] = deque()  # with a whole request in their buffer, perhaps
        self.count = self.size = self.errors = (
            0  # answers, their body bytes, those of 500 and above; since `take_counts`
        )

    def use(self, lead: "LeaderFollowers") -> None:
        """Calls the application through `lead` from now on."""
        self._lead = lead

    def adopt(self, client: Client, found: "HandedConnection", now: float) -> None:
        """A client from another worker, idle or with a part of a request."""
        self.add(client, now, self._times.keepalive or self._times.head)
        client.last = min(now, found.since or now)
        self.set_deadline(client, client.last, self._times.keepalive or self._times.head)
        if found.data:
            client.conn.receive(found.data)
            client.last = 0.0
            client.began = now - found.head
            client.waited = found.body
            self.set_deadline(client, client.began, self._times.head)
            self._queue(client)

    def keep_at_most(self, seconds: float) -> None:
        """From now on connections are kept idle for no longer than this."""
        self._keepalive = min(self._keepalive, seconds)

    def take_counts(self) -> tuple[int, int, int]:
        """(answers, body bytes, errors) since the last time."""
        counts = self.count, self.size, self.errors
        self.count = self.size = self.errors = 0
        return counts

    def turn(self, now: float) -> None:
        """The loop has polled."""
        if now >= self._mark_again:
            self._mark_again = now + MARK
            self.marked_at = now
            self._busy(now)

    def rest(self) -> bool:
        """The loop is about to wait: the next request marks the process busy anew. True if it was marked."""
        marked = self._mark_again > 0
        self._mark_again = 0.0
        return marked

    def event(self, client: Client, mask: int) -> bool:
        """A client is ready. False when the lead was lost."""
        phase = client.phase
        if phase is CALL or client.queued:  # another thread has it, or it goes on in its turn: later
            self.poll_for(client, 0)
            return True
        if phase is FLUSH:
            return self._flush(client)
        try:
            data = client.sock.recv(HEADS if phase is HEAD else RECEIVE)
        except BlockingIOError:
            if client.unsent is not None:
                return self._flush_between(client)
            self.poll_for(client, EPOLLIN)
            return True
        except OSError:
            self.close(client)
            return True
        if not data:
            self.close(client)
            return True
        if phase is not HEAD:
            if phase is LINGER:
                return True
            if phase is PREFACE:
                return self._preface(client, data)
            if phase is READ and client.arrival is not None:
                client.arrival.received(len(data), monotonic())
        client.conn.receive(data)
        return self.advance(client, monotonic())

    def advance(self, client: Client, now: float) -> bool:
        """Goes on with what was received, up to one answered request. False when the lead was lost."""
        conn, phase = client.conn, client.phase
        client.queued = False
        if phase is not HEAD and phase is not BODY:
            return self._resume(client, phase, now)
        try:
            if phase is HEAD:
                request = conn.next_request()
                if request is None:
                    self._await_head(client, now)
                    return True
                if not request.length:
                    return self._serve(client, request, now)
                if self._begins_early(client, request):
                    client.arrival = Arrival(self._times, now)
                    return self._serve(client, request, now)
                if request.expect and not conn.buffered:
                    client.send_continue()
                client.request = request
                client.body = Body(self._disk)
                client.phase = BODY
                client.began = began = now - client.waited
                client.waited = 0.0
                client.arrival = Arrival(self._times, began)
                self._due(client)
            body, arrival = client.body, client.arrival
            assert body is not None and arrival is not None and client.request is not None
            while data := conn.read_body():
                body.append(data)
                arrival.received(len(data), now)
        except HTTPError as error:
            self._refuse(client, error, now)
            return True
        except ClientGone:
            self.close(client)
            return True
        if data is None:
            return self._serve(client, client.request, now)
        if client.unsent is not None:
            return self._flush_between(client)
        self.poll_for(client, EPOLLIN)
        return True

    def _resume(self, client: Client, phase: Phase, now: float) -> bool:
        """Goes on with a response in its turn. False when the lead was lost."""
        if phase is CLOSED:
            return self._lost(client, now)
        if phase is FLUSH:
            return self._flush(client)
        client.phase = CALL
        return self._go_on(client, now)

    def _flush_between(self, client: Client) -> bool:
        """What was sent while a body still comes leaves when there is room for it."""
        try:
            done = client.flush()
        except ClientGone:
            self.close(client)
            return True
        if done and client.phase is BODY:  # it was 100 Continue: the client is asked for its body only now
            client.began = monotonic()
            client.arrival = Arrival(self._times, client.began)
            self._due(client)
        self.poll_for(client, EPOLLIN if done else EPOLLIN | EPOLLOUT)
        return True

    def _queue(self, client: Client) -> None:
        """Has the client go on in its turn. Nothing more is read before that: a client holds one buffer."""
        client.queued = True
        self.ready.append(client)

    def _await_head(self, client: Client, now: float) -> None:
        conn = client.conn
        if conn.state is State.CLOSED:
            self.close(client)
            return
        if conn.buffered and client.last:  # the first bytes of the next request; before the first one, accept counts
            client.began = now
            client.last = 0.0
            self.set_deadline(client, now, self._times.head)
        self.poll_for(client, EPOLLIN)

    def _begins_early(self, client: Client, request: Request) -> bool:
        """Whether the application gets a request before its body."""
        length, buffering = request.length, self._buffering
        if length < 0 or buffering == "on" or not (request.expect or (buffering == "off" and length > IN_MEMORY)):
            return False  # of a chunked body frameworks want to know the length
        return self._exchange.begins_early(client)

    def _due(self, client: Client) -> float:
        """When the body that a client receives will be too slow: its next deadline."""
        assert client.arrival is not None
        due = client.deadline = client.arrival.due()
        if due < self.sweep_at:
            self.sweep_at = due
        return due

    def _serve(self, client: Client, request: Request, now: float) -> bool:
        """Calls the application and goes on with the client. False when the lead was lost."""
        client.request = request
        client.phase = CALL
        client.called = now
        client.deadline = NEVER
        if now >= self._mark_again:
            self._mark_again = now + MARK
            self.marked_at = now
            self._busy(now)
        if self._lead is None:
            self._exchange.answer(client, request, now)
        elif not self._lead.call(client, request, now):
            return False
        self.answered(client, monotonic())
        return True

    def fail(self, client: Client) -> None:
        """Logs the exception in progress and ends the connection that it was for. Never raises."""
        request, phase = client.request, client.phase.name.lower()
        what = f"{request.method} {request.uri}" if request is not None else f"a connection in its phase {phase}"
        self._log.exception("Error of the server with %s of %s, which is closed", what, client.peer or "unix")
        client.request = client.response = None
        try:
            if client.phase not in WAITING:  # else the application has not ended what it began, and hears of it
                self._exchange.forget(client)
            self.close(client)
        except BaseException as error:  # noqa: BLE001 - it is off the register by now
            self._log.debug("%s: cannot be closed in order: %r", client.peer, error)
            client.sock.close()

    def broken(self, client: Client) -> None:
        """Logs the exception in progress, which came out of what answers requests: the connection must end."""
        request = client.request
        what = f"{request.method} {request.uri}" if request is not None else "a request"
        self._log.exception("Error of the server while it answered %s; the connection is closed", what)
        client.close_after = client.reset = client.failed = True
        self._exchange.forget(client)
        if client.unsent is not None:
            client.unsent.close()
            client.unsent = None

    def answered(self, client: Client, now: float) -> None:
        """The application has been called for a request, or has gone on with it: as far as its client has room."""
        if client.phase is not CALL:
            return
        if client.unsent is not None or client.reply is not None:
            self._suspend(client, now)
            return
        self.count += 1
        self.size += client.sent
        if client.failed:
            self.errors += 1
        client.request = client.response = None
        if client.body is not None:
            client.body.close()
            client.body = client.arrival = None
        if client.close_after or client.conn.buffered:
            self._next(client, now)
        else:
            client.phase = HEAD
            client.last = now
            deadline = client.deadline = now + self._keepalive
            if deadline < self.sweep_at:
                self.sweep_at = deadline
            if client.mask != EPOLLIN:
                self.poll_for(client, EPOLLIN)

    def _next(self, client: Client, now: float) -> None:
        """A response has left. The client waits for the next request, or ends."""
        if client.close_after:
            self._end(client)
            return
        client.phase = HEAD
        client.last = now
        conn = client.conn
        if conn.buffered:
            self._queue(client)
            self.set_deadline(client, now, self._times.head)
            client.last = 0.0
            client.began = now
            return
        self.set_deadline(client, now, self._keepalive)
        self.poll_for(client, EPOLLIN)

    def _suspend(self, client: Client, now: float) -> None:
        """A response goes on later: when there is more of its body, when its client has room, or in its turn."""
        if client.reply is not None and client.reply.waits:
            client.phase = READ
            self._due(client)
            self.poll_for(client, EPOLLIN if client.unsent is None else EPOLLIN | EPOLLOUT)
            return
        client.phase = FLUSH
        if client.unsent is None:  # it has had its slice of time
            self._queue(client)
            return
        self.set_deadline(client, now, self._times.send)  # for each bit that the client takes
        self.poll_for(client, WANTS[FLUSH])

    def _flush(self, client: Client) -> bool:
        """Sends what is left of a response, and goes on with it after that. False when the lead was lost."""
        unsent, now = client.unsent, monotonic()
        try:
            done = client.flush()
        except ClientGone:
            self.close(client)
            return True
        if done:
            client.phase = CALL
            return self._go_on(client, now)
        if unsent is not None and unsent.moved:
            unsent.moved = 0
            self.set_deadline(client, now, self._times.send)
        return True

    def _go_on(self, client: Client, now: float) -> bool:
        """Goes on with a response that waited for its client, or whose client has gone. False: the lead was lost.

        What belongs to the application is done in the thread that called it.
        """
        reply = client.reply
        if reply is not None:
            client.called = now
            client.deadline = NEVER
            if now >= self._mark_again:
                self._mark_again = now + MARK
                self.marked_at = now
                self._busy(now)
            if self._lead is not None and (reply.fiber is not None or self._exchange.needs_its_thread(reply)):
                return self._lead.resume(client, reply.thread, partial(self._exchange.go_on, client, reply))
            self._exchange.go_on(client, reply)
        self.answered(client, monotonic())
        return True

    def _lost(self, client: Client, now: float) -> bool:
        """The end of a response whose client has gone. False when the lead was lost."""
        if client.reply is None:
            return True
        self.count += 1
        if client.reply.response.status >= "5":
            self.errors += 1
        return self._go_on(client, now)

    def close(self, client: Client) -> None:
        """Closes a connection. A response that was on its way is ended in its turn: the application may be called."""
        self._lose(client)
        super().close(client)

    def _forget(self, client: Client) -> None:
        self._lose(client)
        super()._forget(client)

    def _lose(self, client: Client) -> None:
        reply = client.reply
        if reply is not None and client.phase in WAITING:
            reply.lost = client.unsent.left if client.unsent is not None else 0
            if not client.queued:
                self._queue(client)

    def cut(self) -> list[Client]:
        """Closes every connection but those that the application has; returns whose responses it ends now, in turn.

        PEP 3333: close() is called however a response ends.
        """
        for client in self:
            if client.phase is not CALL:
                self.close(client)
        return [client for client in self.ready if client.reply is not None]

    def _refuse(self, client: Client, error: HTTPError, now: float) -> None:
        """Answers a request that could not be read, and ends the connection."""
        self._exchange.refuse(client, error, now)
        client.phase = CALL
        client.close_after = True
        client.sent = 0
        client.failed = False
        self.answered(client, now)

    def _end(self, client: Client) -> None:
        """Closes a client so that its client can still read what was sent.

        Closing a socket with unread data resets the connection, and the reset may overtake the response (RFC 9112
        section 9.6): the sending half is closed first, and what still comes is dropped until the client closes.
        """
        if client.reset:
            client.reset_at_close()
            self.close(client)
            return
        if not client.lingers:
            self.close(client)
            return
        try:
            client.sock.shutdown(socket.SHUT_WR)
            if client.sock.recv(RECEIVE):
                raise BlockingIOError  # there may be more
        except BlockingIOError:
            client.phase = LINGER
            client.conn.close()
            self.set_deadline(client, monotonic(), self._times.linger)
            self.poll_for(client, EPOLLIN)
            return
        except OSError:
            pass  # it is gone already, which is all that was wanted
        self.close(client)

    def _preface(self, client: Client, data: bytes) -> bool:
        try:
            complete = self._acceptor.read_preface(client, data)
        except BadRequest as error:
            self._exchange.complain(self._log.warning, "%s: %s", client.peer, error)
            self.close(client)
            return True
        if complete:
            return self.advance(client, monotonic())
        self.poll_for(client, EPOLLIN)
        return True

    def expired(self, client: Client, now: float) -> None:
        """A deadline has passed: the client is told so if it was asking for something, and the connection ends."""
        phase = client.phase
        if client.queued:  # it is we who are late
            self.set_deadline(client, now, self._times.head)
        elif phase in READING and has_news(client):
            self.set_deadline(client, now, LATE)
        elif phase is HEAD and client.conn.buffered:
            self._refuse(client, RequestTimedOut("the head did not arrive in time"), now)
        elif phase is READ:
            if self._due(client) <= now and client.reply is not None and client.reply.incoming is not None:
                client.reply.incoming.fail(TooSlow("the body is slower than body_min_rate or body_timeout allow"))
                client.deadline = NEVER
                self._queue(client)
        elif phase is BODY:
            if self._due(client) <= now:
                self._refuse(
                    client, RequestTimedOut("the body is slower than body_min_rate or body_timeout allow"), now
                )
        elif phase is HEAD:
            self._end(client)
        else:
            self.close(client)

    def has_idle(self) -> bool:
        return any(is_idle(client) for client in self.open.values())

    def close_idle(self, now: float) -> int:
        """Closes a few connections on which no request has begun, for want of room; returns how many.

        Those that never sent a byte go first, the oldest first; if there are none, those that were answered longest
        ago. Who has just come, or has just been answered, is left alone: the next request may be under way.
        """
        idle = [client for client in self.open.values() if is_idle(client)]
        useless = [client for client in idle if not client.last] or idle
        settled = [client for client in useless if (client.last or client.began) <= now - SETTLED]
        few = min(ROOM, 1 + len(self.open) // 8)
        chosen = nsmallest(few, settled, key=lambda client: client.last or client.began)
        closed = [client for client in chosen if not has_news(client)]
        for client in closed:
            self.close(client)
        return len(closed)


def is_idle(client: Client) -> bool:
    """Whether nothing of a request has been received, and none is being answered."""
    if client.phase is PREFACE:
        return not client.preface
    return client.phase is HEAD and not client.queued and not client.conn.buffered


def has_news(client: Client) -> bool:
    """Whether something has arrived that was not read yet: it is we who are late."""
    try:
        return bool(client.sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
