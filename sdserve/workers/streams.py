"""What happens to streams: receive, parse, call, send, and what is due when nothing happens.

Nothing waits for one client. Heads and bodies are collected as they come, responses that the peer does not take are
kept and sent when it does, and every phase has a deadline (register.py). Methods that may call the application return
False when the lead was lost meanwhile: then the stream, and everything else here, belongs to another thread.
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
from sdserve.workers.body import IN_MEMORY, Arrival, Body
from sdserve.workers.input import TooSlow
from sdserve.workers.register import Register
from sdserve.workers.spool import Quota
from sdserve.workers.stream import EPOLLIN, EPOLLOUT, HEADS, NEVER, RECEIVE, WANTS, Phase, Stream

if TYPE_CHECKING:
    from sdserve.log import Logger
    from sdserve.process.adoption import Foundling
    from sdserve.workers.door import Door
    from sdserve.workers.exchange import Exchange
    from sdserve.workers.lead import Lead

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


class Streams(Register):
    """What becomes of all open connections of a loop.

    `exchange` answers requests, through `lead` where there are several threads; `busy(now)` marks the process busy;
    `disk` is what the temporary files of the process may take; `buffering`: on, auto, off, which bodies come first.
    """

    def __init__(
        self,
        epoll: select.epoll,
        times: Times,
        door: "Door",
        exchange: "Exchange",
        log: "Logger",
        busy: Callable[[float], None],
        disk: Quota,
        buffering: str,
    ) -> None:
        super().__init__(epoll)
        self._times = times
        self._keepalive = times.keepalive
        self._door = door
        self._exchange = exchange
        self._log = log
        self._busy = busy
        self._disk = disk
        self._buffering = buffering
        self._lead: Lead | None = None
        self._mark_again = 0.0  # when the busy mark must be written next
        self.marked_at = 0.0
        self.ready: deque[Stream] = deque()  # with a whole request in their buffer, perhaps
        self.count = self.size = self.errors = (
            0  # answers, their body bytes, those of 500 and above; since `take_counts`
        )

    def use(self, lead: "Lead") -> None:
        """Calls the application through `lead` from now on."""
        self._lead = lead

    def adopt(self, stream: Stream, found: "Foundling", now: float) -> None:
        """A stream from another worker, idle or with a part of a request."""
        self.add(stream, now, self._times.keepalive or self._times.head)
        stream.last = min(now, found.since or now)
        self.set_deadline(stream, stream.last, self._times.keepalive or self._times.head)
        if found.data:
            stream.conn.receive(found.data)
            stream.last = 0.0
            stream.began = now - found.head
            stream.waited = found.body
            self.set_deadline(stream, stream.began, self._times.head)
            self._queue(stream)

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

    def event(self, stream: Stream, mask: int) -> bool:
        """A stream is ready. False when the lead was lost."""
        phase = stream.phase
        if phase is CALL or stream.queued:  # another thread has it, or it goes on in its turn: later
            self.poll_for(stream, 0)
            return True
        if phase is FLUSH:
            return self._flush(stream)
        try:
            data = stream.sock.recv(HEADS if phase is HEAD else RECEIVE)
        except BlockingIOError:
            if stream.unsent is not None:
                return self._flush_between(stream)
            self.poll_for(stream, EPOLLIN)
            return True
        except OSError:
            self.close(stream)
            return True
        if not data:
            self.close(stream)
            return True
        if phase is not HEAD:
            if phase is LINGER:
                return True
            if phase is PREFACE:
                return self._preface(stream, data)
            if phase is READ and stream.arrival is not None:
                stream.arrival.received(len(data), monotonic())
        stream.conn.receive(data)
        return self.advance(stream, monotonic())

    def advance(self, stream: Stream, now: float) -> bool:
        """Goes on with what was received, up to one answered request. False when the lead was lost."""
        conn, phase = stream.conn, stream.phase
        stream.queued = False
        if phase is not HEAD and phase is not BODY:
            return self._resume(stream, phase, now)
        try:
            if phase is HEAD:
                request = conn.next_request()
                if request is None:
                    self._await_head(stream, now)
                    return True
                if not request.length:
                    return self._serve(stream, request, now)
                if self._begins_early(stream, request):
                    stream.arrival = Arrival(self._times, now)
                    return self._serve(stream, request, now)
                if request.expect and not conn.buffered:
                    stream.send_continue()
                stream.request = request
                stream.body = Body(self._disk)
                stream.phase = BODY
                stream.began = began = now - stream.waited
                stream.waited = 0.0
                stream.arrival = Arrival(self._times, began)
                self._due(stream)
            body, arrival = stream.body, stream.arrival
            assert body is not None and arrival is not None and stream.request is not None
            while data := conn.read_body():
                body.append(data)
                arrival.received(len(data), now)
        except HTTPError as error:
            self._refuse(stream, error, now)
            return True
        except ClientGone:
            self.close(stream)
            return True
        if data is None:
            return self._serve(stream, stream.request, now)
        if stream.unsent is not None:
            return self._flush_between(stream)
        self.poll_for(stream, EPOLLIN)
        return True

    def _resume(self, stream: Stream, phase: Phase, now: float) -> bool:
        """Goes on with a response in its turn. False when the lead was lost."""
        if phase is CLOSED:
            return self._lost(stream, now)
        if phase is FLUSH:
            return self._flush(stream)
        stream.phase = CALL
        return self._go_on(stream, now)

    def _flush_between(self, stream: Stream) -> bool:
        """What was sent while a body still comes leaves when there is room for it."""
        try:
            done = stream.flush()
        except ClientGone:
            self.close(stream)
            return True
        if done and stream.phase is BODY:  # it was 100 Continue: the client is asked for its body only now
            stream.began = monotonic()
            stream.arrival = Arrival(self._times, stream.began)
            self._due(stream)
        self.poll_for(stream, EPOLLIN if done else EPOLLIN | EPOLLOUT)
        return True

    def _queue(self, stream: Stream) -> None:
        """Has the stream go on in its turn. Nothing more is read before that: a client holds one buffer."""
        stream.queued = True
        self.ready.append(stream)

    def _await_head(self, stream: Stream, now: float) -> None:
        conn = stream.conn
        if conn.state is State.CLOSED:
            self.close(stream)
            return
        if conn.buffered and stream.last:  # the first bytes of the next request; before the first one, accept counts
            stream.began = now
            stream.last = 0.0
            self.set_deadline(stream, now, self._times.head)
        self.poll_for(stream, EPOLLIN)

    def _begins_early(self, stream: Stream, request: Request) -> bool:
        """Whether the application gets a request before its body."""
        length, buffering = request.length, self._buffering
        if length < 0 or buffering == "on" or not (request.expect or (buffering == "off" and length > IN_MEMORY)):
            return False  # of a chunked body frameworks want to know the length
        return self._exchange.begins_early(stream)

    def _due(self, stream: Stream) -> float:
        """When the body that a stream receives will be too slow: its next deadline."""
        assert stream.arrival is not None
        due = stream.deadline = stream.arrival.due()
        if due < self.sweep_at:
            self.sweep_at = due
        return due

    def _serve(self, stream: Stream, request: Request, now: float) -> bool:
        """Calls the application and goes on with the stream. False when the lead was lost."""
        stream.request = request
        stream.phase = CALL
        stream.called = now
        stream.deadline = NEVER
        if now >= self._mark_again:
            self._mark_again = now + MARK
            self.marked_at = now
            self._busy(now)
        if self._lead is None:
            self._exchange.answer(stream, request, now)
        elif not self._lead.call(stream, request, now):
            return False
        self.answered(stream, monotonic())
        return True

    def fail(self, stream: Stream) -> None:
        """Logs the exception in progress and ends the connection that it was for. Never raises."""
        request, phase = stream.request, stream.phase.name.lower()
        what = f"{request.method} {request.uri}" if request is not None else f"a connection in its phase {phase}"
        self._log.exception("Error of the server with %s of %s, which is closed", what, stream.peer or "unix")
        stream.request = stream.response = None
        try:
            if stream.phase not in WAITING:  # else the application has not ended what it began, and hears of it
                self._exchange.forget(stream)
            self.close(stream)
        except BaseException as error:  # noqa: BLE001 - it is off the register by now
            self._log.debug("%s: cannot be closed in order: %r", stream.peer, error)
            stream.sock.close()

    def broken(self, stream: Stream) -> None:
        """Logs the exception in progress, which came out of what answers requests: the connection must end."""
        request = stream.request
        what = f"{request.method} {request.uri}" if request is not None else "a request"
        self._log.exception("Error of the server while it answered %s; the connection is closed", what)
        stream.close_after = stream.reset = stream.failed = True
        self._exchange.forget(stream)
        if stream.unsent is not None:
            stream.unsent.close()
            stream.unsent = None

    def answered(self, stream: Stream, now: float) -> None:
        """The application has been called for a request, or has gone on with it: as far as its client has room."""
        if stream.phase is not CALL:
            return
        if stream.unsent is not None or stream.reply is not None:
            self._suspend(stream, now)
            return
        self.count += 1
        self.size += stream.sent
        if stream.failed:
            self.errors += 1
        stream.request = stream.response = None
        if stream.body is not None:
            stream.body.close()
            stream.body = stream.arrival = None
        if stream.close_after or stream.conn.buffered:
            self._next(stream, now)
        else:
            stream.phase = HEAD
            stream.last = now
            deadline = stream.deadline = now + self._keepalive
            if deadline < self.sweep_at:
                self.sweep_at = deadline
            if stream.mask != EPOLLIN:
                self.poll_for(stream, EPOLLIN)

    def _next(self, stream: Stream, now: float) -> None:
        """A response has left. The stream waits for the next request, or ends."""
        if stream.close_after:
            self._end(stream)
            return
        stream.phase = HEAD
        stream.last = now
        conn = stream.conn
        if conn.buffered:
            self._queue(stream)
            self.set_deadline(stream, now, self._times.head)
            stream.last = 0.0
            stream.began = now
            return
        self.set_deadline(stream, now, self._keepalive)
        self.poll_for(stream, EPOLLIN)

    def _suspend(self, stream: Stream, now: float) -> None:
        """A response goes on later: when there is more of its body, when its client has room, or in its turn."""
        if stream.reply is not None and stream.reply.waits:
            stream.phase = READ
            self._due(stream)
            self.poll_for(stream, EPOLLIN if stream.unsent is None else EPOLLIN | EPOLLOUT)
            return
        stream.phase = FLUSH
        if stream.unsent is None:  # it has had its slice of time
            self._queue(stream)
            return
        self.set_deadline(stream, now, self._times.send)  # for each bit that the client takes
        self.poll_for(stream, WANTS[FLUSH])

    def _flush(self, stream: Stream) -> bool:
        """Sends what is left of a response, and goes on with it after that. False when the lead was lost."""
        unsent, now = stream.unsent, monotonic()
        try:
            done = stream.flush()
        except ClientGone:
            self.close(stream)
            return True
        if done:
            stream.phase = CALL
            return self._go_on(stream, now)
        if unsent is not None and unsent.moved:
            unsent.moved = 0
            self.set_deadline(stream, now, self._times.send)
        return True

    def _go_on(self, stream: Stream, now: float) -> bool:
        """Goes on with a response that waited for its client, or whose client has gone. False: the lead was lost.

        What belongs to the application is done in the thread that called it.
        """
        reply = stream.reply
        if reply is not None:
            stream.called = now
            stream.deadline = NEVER
            if now >= self._mark_again:
                self._mark_again = now + MARK
                self.marked_at = now
                self._busy(now)
            if self._lead is not None and (reply.fiber is not None or self._exchange.needs_its_thread(reply)):
                return self._lead.resume(stream, reply.thread, partial(self._exchange.go_on, stream, reply))
            self._exchange.go_on(stream, reply)
        self.answered(stream, monotonic())
        return True

    def _lost(self, stream: Stream, now: float) -> bool:
        """The end of a response whose client has gone. False when the lead was lost."""
        if stream.reply is None:
            return True
        self.count += 1
        if stream.reply.response.status >= "5":
            self.errors += 1
        return self._go_on(stream, now)

    def close(self, stream: Stream) -> None:
        """Closes a connection. A response that was on its way is ended in its turn: the application may be called."""
        self._lose(stream)
        super().close(stream)

    def _forget(self, stream: Stream) -> None:
        self._lose(stream)
        super()._forget(stream)

    def _lose(self, stream: Stream) -> None:
        reply = stream.reply
        if reply is not None and stream.phase in WAITING:
            reply.lost = stream.unsent.left if stream.unsent is not None else 0
            if not stream.queued:
                self._queue(stream)

    def cut(self) -> list[Stream]:
        """Closes every connection but those that the application has; returns whose responses it ends now, in turn.

        PEP 3333: close() is called however a response ends.
        """
        for stream in self:
            if stream.phase is not CALL:
                self.close(stream)
        return [stream for stream in self.ready if stream.reply is not None]

    def _refuse(self, stream: Stream, error: HTTPError, now: float) -> None:
        """Answers a request that could not be read, and ends the connection."""
        self._exchange.refuse(stream, error, now)
        stream.phase = CALL
        stream.close_after = True
        stream.sent = 0
        stream.failed = False
        self.answered(stream, now)

    def _end(self, stream: Stream) -> None:
        """Closes a stream so that its client can still read what was sent.

        Closing a socket with unread data resets the connection, and the reset may overtake the response (RFC 9112
        section 9.6): the sending half is closed first, and what still comes is dropped until the client closes.
        """
        if stream.reset:
            stream.reset_at_close()
            self.close(stream)
            return
        if not stream.lingers:
            self.close(stream)
            return
        try:
            stream.sock.shutdown(socket.SHUT_WR)
            if stream.sock.recv(RECEIVE):
                raise BlockingIOError  # there may be more
        except BlockingIOError:
            stream.phase = LINGER
            stream.conn.close()
            self.set_deadline(stream, monotonic(), self._times.linger)
            self.poll_for(stream, EPOLLIN)
            return
        except OSError:
            pass  # it is gone already, which is all that was wanted
        self.close(stream)

    def _preface(self, stream: Stream, data: bytes) -> bool:
        try:
            complete = self._door.read_preface(stream, data)
        except BadRequest as error:
            self._exchange.complain(self._log.warning, "%s: %s", stream.peer, error)
            self.close(stream)
            return True
        if complete:
            return self.advance(stream, monotonic())
        self.poll_for(stream, EPOLLIN)
        return True

    def expired(self, stream: Stream, now: float) -> None:
        """A deadline has passed: the client is told so if it was asking for something, and the connection ends."""
        phase = stream.phase
        if stream.queued:  # it is we who are late
            self.set_deadline(stream, now, self._times.head)
        elif phase in READING and has_news(stream):
            self.set_deadline(stream, now, LATE)
        elif phase is HEAD and stream.conn.buffered:
            self._refuse(stream, RequestTimedOut("the head did not arrive in time"), now)
        elif phase is READ:
            if self._due(stream) <= now and stream.reply is not None and stream.reply.incoming is not None:
                stream.reply.incoming.fail(TooSlow("the body is slower than body_min_rate or body_timeout allow"))
                stream.deadline = NEVER
                self._queue(stream)
        elif phase is BODY:
            if self._due(stream) <= now:
                self._refuse(
                    stream, RequestTimedOut("the body is slower than body_min_rate or body_timeout allow"), now
                )
        elif phase is HEAD:
            self._end(stream)
        else:
            self.close(stream)

    def has_idle(self) -> bool:
        return any(is_idle(stream) for stream in self.open.values())

    def close_idle(self, now: float) -> int:
        """Closes a few connections on which no request has begun, for want of room; returns how many.

        Those that never sent a byte go first, the oldest first; if there are none, those that were answered longest
        ago. Who has just come, or has just been answered, is left alone: the next request may be under way.
        """
        idle = [stream for stream in self.open.values() if is_idle(stream)]
        useless = [stream for stream in idle if not stream.last] or idle
        settled = [stream for stream in useless if (stream.last or stream.began) <= now - SETTLED]
        few = min(ROOM, 1 + len(self.open) // 8)
        chosen = nsmallest(few, settled, key=lambda stream: stream.last or stream.began)
        closed = [stream for stream in chosen if not has_news(stream)]
        for stream in closed:
            self.close(stream)
        return len(closed)


def is_idle(stream: Stream) -> bool:
    """Whether nothing of a request has been received, and none is being answered."""
    if stream.phase is PREFACE:
        return not stream.preface
    return stream.phase is HEAD and not stream.queued and not stream.conn.buffered


def has_news(stream: Stream) -> bool:
    """Whether something has arrived that was not read yet: it is we who are late."""
    try:
        return bool(stream.sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
