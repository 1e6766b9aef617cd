"""The WSGI worker's loop: one epoll, many streams, and the application called by whichever thread leads.

A turn: poll, then for each ready stream receive, parse, call, send. Nothing waits for one client: heads and bodies are
collected as they come, responses that the peer does not take are kept and sent when it does, and every phase of a
stream has a deadline. Deadlines are looked at when the earliest is due, so an idle worker sleeps without end.

Threads (see leaders.py): the thread in `lead` owns everything here. Before it calls the application it leaves a token
on `_table`; whoever takes the token away, the leader when the call returns or the watcher when the call lasts, has
the lead from then on. A thread that comes back without the lead puts its stream on `_returned` and joins the followers.

Retirement: listeners are left at once, and idle connections are given to the workers that stay (foster.py). Where
nobody would adopt them, requests that arrived are answered with `Connection: close`, and a connection that was active
within `ACTIVE` seconds is kept until its client has had that long to send its next request, which would otherwise meet
a closing connection. The last look before an idle connection is closed is a read.
"""

import select
import socket
import struct
import threading
from collections import deque
from os import eventfd, eventfd_read, eventfd_write
from time import monotonic
from typing import TYPE_CHECKING

from sdserve.gateway.forwarded import Trusted
from sdserve.gateway.wsgi import ClientGone
from sdserve.http.connection import Connection, State
from sdserve.http.errors import BadRequest, HTTPError, RequestTimedOut
from sdserve.http.request import Request, RequestReader
from sdserve.workers import foster
from sdserve.workers.body import Spool, too_slow
from sdserve.workers.leaders import PROMOTE_AFTER, SLOW, Pace
from sdserve.workers.stream import EPOLLIN, NEVER, RECEIVE, WANTS, Phase, Stream
from sdserve.workers.values import Values

if TYPE_CHECKING:
    from sdserve.process.listeners import Listener
    from sdserve.workers.exchange import Exchange
    from sdserve.workers.wsgi import WSGIWorker

EPOLLEXCLUSIVE = select.EPOLLEXCLUSIVE
EVENTS = 64  # of one poll
SWEEP = 0.25  # seconds between two looks at all deadlines, at least
QUIET = 20  # looks of the watcher at an empty table before it sleeps
MARK = 0.1  # seconds that the busy mark may be older than the request it is for
ACTIVE = 1.0  # seconds after its last response in which a client's next request is waited for at retirement
HEAD, BODY, CALL, FLUSH, LINGER = Phase.HEAD, Phase.BODY, Phase.CALL, Phase.FLUSH, Phase.LINGER


class Loop:
    """Serves `listeners` until `worker` says otherwise. `exchange` answers one request of one stream."""

    def __init__(self, worker: "WSGIWorker", values: Values, exchange: "Exchange") -> None:
        self._worker = worker
        self._values = values
        self._times = values.times
        self._keepalive = values.times.keepalive
        self._exchange = exchange
        self._reader = RequestReader(values.limits)
        self._trusted = Trusted(values.forwarded_allow_ips)
        self._proxies = Trusted(values.proxy_allow_ips) if values.proxy_protocol != "off" else None
        self._epoll = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._listeners: dict[int, Listener] = {listener.fileno(): listener for listener in worker.sockets}
        self._control = set(worker.control_fds())
        self._listening = False
        self._adoption = worker.adoption
        self._adopting = -1 if self._adoption is None else self._adoption.receive_end.fileno()
        self._giving = False  # idle connections go to other workers
        self._pending: deque[tuple[int, int]] = deque()  # events polled and not yet handled
        self._ready: deque[Stream] = deque()  # streams with a whole request in their buffer, perhaps
        self._sweep_at = NEVER
        self._mark_again = 0.0  # when the busy mark must be written next
        self._answered = self._bytes = self._errors = 0  # since the last turn
        self.retiring = False
        self.stopped = False
        # --- threads
        self._threads = values.threads
        self._baton = threading.Lock()
        self._switch = threading.Lock()  # held while the token of a call that lasts changes hands
        self._table: list[Stream] = []
        self._calls = 0
        self._waiting = 0  # followers
        self._pace = Pace()
        self._returned: deque[Stream] = deque()
        self.running: dict[Stream, tuple[float, int]] = {}  # slow calls: since when, in which thread
        self.stuck: set[Stream] = set()  # those that exceeded the time-out
        self._parked = True
        self._alarm = threading.Event()
        self._tick = threading.Lock()
        self._tick.acquire()
        self._caller = 0  # the thread that leads, and whose call is on the table
        self._wake = eventfd(0) if self._threads > 1 else -1
        for fd in self._control:
            self._epoll.register(fd, EPOLLIN)
        if self._wake >= 0:
            self._epoll.register(self._wake, EPOLLIN)
        for listener in self._listeners.values():
            if isinstance(listener.address, tuple):
                listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what it accepts

    # --- life ---------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves in this thread and `threads - 1` more; returns when the worker has retired, or must leave."""
        self._listen(True)
        if self._threads > 1:
            for number in range(self._threads):
                threading.Thread(target=self._follow, name=f"sdserve-{number}", daemon=True).start()
            self._watch()
        else:
            self._baton.acquire()
            self._lead()
        for stream in list(self._streams.values()):
            if stream.phase is not CALL:
                stream.close()
        self._epoll.close()

    def _follow(self) -> None:
        while not self.stopped:
            self._waiting += 1
            self._baton.acquire()
            self._waiting -= 1
            if self.stopped:
                self._baton.release()
            else:
                self._lead()

    def _stop(self) -> None:
        self.stopped = True
        self._baton.release()
        self._alarm.set()

    def _rests(self) -> None:
        """Before the leader waits: what the turn did is counted, and the busy mark is taken away.

        While other threads are in calls the process is not idle, but it is well: the mark is renewed, and the master's
        time-out is left to a process in which nothing moves.
        """
        if self._answered:
            self._worker.count_requests(self._answered, self._bytes, self._errors)
            self._answered = self._bytes = self._errors = 0
        if self.running:
            self._worker.request_begins(monotonic())
        elif self._mark_again:
            self._mark_again = 0.0
            self._worker.request_ends()

    def _lead(self) -> None:
        """Turns until the lead is lost, or until all is over."""
        self._caller = threading.get_ident()
        worker = self._worker
        poll, pending, ready, returned = self._epoll.poll, self._pending, self._ready, self._returned
        streams = self._streams
        clock = monotonic
        while True:
            while returned:
                self._after(returned.popleft(), clock())
            while pending:
                fd, mask = pending.popleft()
                stream = streams.get(fd)
                if stream is None:
                    if not self._other(fd):
                        return
                elif not self._event(stream, mask):
                    return
            for _ in range(len(ready)):
                stream = ready.popleft()
                if stream.phase is HEAD and not self._advance(stream, clock()):
                    return
            if not worker.alive and self._retirement_ends(clock()):
                self._stop()
                return
            if ready:
                pending.extend(poll(0, EVENTS))
                continue
            self._rests()
            if self._sweep_at == NEVER and worker.drain_by is None:
                pending.extend(poll(-1, EVENTS))
                continue
            pending.extend(poll(max(0.0, min(self._sweep_at, worker.drain_by or NEVER) - clock()), EVENTS))
            now = clock()
            if now >= self._sweep_at:
                self._sweep(now)

    def _other(self, fd: int) -> bool:
        """An event of a listener or of a control fd. False when the lead was lost."""
        if fd in self._listeners:
            # Once told to leave, what has been queued is the business of `_accept_rest`.
            return self._accept(self._listeners[fd]) if self._listening and self._worker.alive else True
        if fd == self._adopting:
            if self._listening and self._worker.alive:
                self._adopt()
        elif fd in self._control:
            self._worker.handle_control(fd)
        elif fd == self._wake:
            eventfd_read(fd)
        return True

    def calls(self) -> list[tuple[Request, float]]:
        """The requests that the application has now, and since when."""
        now = [stream for stream in self._streams.values() if stream.phase is CALL]
        return [(stream.request, stream.called) for stream in now if stream.request is not None]

    # --- accepting ----------------------------------------------------------------------------------------------------

    def _listen(self, wanted: bool) -> None:
        if wanted == self._listening:
            return
        self._listening = wanted
        for fd in self._listeners:
            if wanted:
                self._epoll.register(fd, EPOLLIN | EPOLLEXCLUSIVE)
            else:
                self._epoll.unregister(fd)
        if self._adopting >= 0:
            if wanted:
                self._epoll.register(self._adopting, EPOLLIN | EPOLLEXCLUSIVE)
            else:
                self._epoll.unregister(self._adopting)

    def _accept(self, listener: "Listener", *, read: bool = True) -> bool:
        """Takes one connection and, with `read`, serves what has arrived on it. False when the lead was lost."""
        try:
            sock, address = listener.sock.accept()
        except BlockingIOError:  # another worker was quicker
            return True
        except ConnectionAbortedError:  # its client gave up while it was queued
            return True
        except (
            OSError
        ) as error:  # no descriptors or no memory left: the connection stays queued, for others or for later
            self._worker.log.error(
                "cannot accept on %s: %s; worker %s has %d connections", listener, error, *self._load()
            )
            self._listen(False)
            self._sweep_at = min(self._sweep_at, monotonic() + SWEEP)
            return True
        sock.setblocking(False)
        # The kernel wakes the worker that registered first: the one that got a connection goes to the end of the line.
        self._epoll.unregister(listener.fileno())
        self._epoll.register(listener.fileno(), EPOLLIN | EPOLLEXCLUSIVE)
        peer = (str(address[0]), str(address[1])) if isinstance(address, tuple) else ("", "")
        stream = self._welcome(sock, listener, peer)
        now = monotonic()
        stream.began = now
        self._deadline(stream, now, self._times.head)
        if self._proxies is not None and peer[0] in self._proxies:
            stream.phase = Phase.PREFACE
        if not read:
            self._mask(stream, EPOLLIN)
            return True
        return self._event(stream, EPOLLIN)

    def _welcome(self, sock: socket.socket, listener: "Listener", peer: tuple[str, str]) -> Stream:
        values = self._values
        base = self._exchange.base(listener, sock, peer)
        stream = Stream(sock, Connection(self._reader, values.limits), base, peer[0], self._times.send)
        stream.listener = str(listener)
        stream.trusted = peer[0] in self._trusted
        self._streams[stream.fd] = stream
        if len(self._streams) >= values.connections:
            self._listen(False)
        return stream

    # --- adoption -----------------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Takes in connections that another worker gave away; they may have something to read already."""
        assert self._adoption is not None
        now = monotonic()
        for foundling in self._adoption.take():
            listener = foster.listener_of(foundling, self._listeners.values())
            if listener is None or foundling.sock.fileno() in self._streams:
                foundling.sock.close()
                continue
            stream = self._welcome(foundling.sock, listener, foster.peer_of(foundling))
            stream.proxied = bool(foundling.peer)
            stream.last = now
            self._deadline(stream, now, self._times.keepalive or self._times.head)
            self._pending.append((stream.fd, EPOLLIN))

    def _give_away(self) -> None:
        """Sends idle connections to the workers that stay; when the queue is full, the rest ends here."""
        assert self._adoption is not None
        gone, all_went = foster.give_away(self._adoption, self._streams.values())
        for stream in gone:
            self._close(stream)
        if not all_went:
            self._giving = False
            self._exchange.gateway.open = False
            self._hurry()

    # --- streams ------------------------------------------------------------------------------------------------------

    def _event(self, stream: Stream, mask: int) -> bool:
        """A stream is ready. False when the lead was lost."""
        phase = stream.phase
        if phase is FLUSH:
            self._flush(stream)
            return True
        if phase is CALL:  # another thread has it, and its client has sent more or gone: later
            self._mask(stream, 0)
            return True
        try:
            data = stream.sock.recv(RECEIVE)
        except BlockingIOError:
            if not stream.mask:
                self._mask(stream, EPOLLIN)
            return True
        except OSError:
            self._close(stream)
            return True
        if not data:
            self._close(stream)
            return True
        if phase is not HEAD:
            if phase is LINGER:
                return True
            if phase is Phase.PREFACE:
                return self._preface(stream, data)
        stream.conn.receive(data)
        return self._advance(stream, monotonic())

    def _advance(self, stream: Stream, now: float) -> bool:
        """Goes on with what was received, up to one answered request. False when the lead was lost."""
        conn = stream.conn
        try:
            if stream.phase is HEAD:
                request = conn.next_request()
                if request is None:
                    self._await_head(stream, now)
                    return True
                if not request.length or request.expect:
                    return self._serve(stream, request, now)
                stream.request = request
                stream.spool = Spool()
                stream.phase = BODY
                stream.began = now
                self._deadline(stream, now, self._times.body_grace if self._times.body_rate else 0)
            spool = stream.spool
            assert spool is not None and stream.request is not None
            while data := conn.read_body():
                spool.append(data)
        except HTTPError as error:
            self._refuse(stream, error, now)
            return True
        except OSError as error:  # no room for the body
            self._worker.log.error("cannot keep a request's body: %s", error)
            self._close(stream)
            return True
        if data is None:
            return self._serve(stream, stream.request, now)
        if not stream.mask:
            self._mask(stream, EPOLLIN)
        return True

    def _await_head(self, stream: Stream, now: float) -> None:
        conn = stream.conn
        if conn.state is State.CLOSED:
            self._close(stream)
            return
        if conn.buffered and stream.last:  # the first bytes of the next request; before the first one, accept counts
            stream.began = now
            stream.last = 0.0
            self._deadline(stream, now, self._times.head)
        if not stream.mask:
            self._mask(stream, EPOLLIN)

    def _serve(self, stream: Stream, request: Request, now: float) -> bool:
        """Calls the application and goes on with the stream. False when the lead was lost."""
        stream.request = request
        stream.phase = CALL
        stream.called = now
        stream.deadline = NEVER
        if now >= self._mark_again:
            self._mark_again = now + MARK
            self._worker.request_begins(now)
        if self._threads == 1:
            self._exchange.answer(stream, request, now)
            self._after(stream, monotonic())
            return True
        if self._loses_lead(stream, request, now):
            return False
        self._after(stream, monotonic())
        return True

    def _after(self, stream: Stream, now: float) -> None:
        """A request was answered, as far as the application goes."""
        self._answered += 1
        self._bytes += stream.sent
        if stream.failed:
            self._errors += 1
        stream.request = None
        if stream.spool is not None:
            stream.spool.close()
            stream.spool = None
        if stream.outbox is not None:
            stream.phase = FLUSH
            self._flush(stream)
        elif stream.close_after or not stream.conn.idle:
            self._next(stream, now)
        else:
            stream.phase = HEAD
            stream.last = now
            deadline = stream.deadline = now + self._keepalive
            if deadline < self._sweep_at:
                self._sweep_at = deadline
            if stream.mask != EPOLLIN:
                self._mask(stream, EPOLLIN)

    def _next(self, stream: Stream, now: float) -> None:
        """A response has left. The stream waits for the next request, or ends."""
        if stream.close_after:
            self._end(stream)
            return
        stream.phase = HEAD
        stream.last = now
        conn = stream.conn
        if conn.buffered:
            self._ready.append(stream)
            self._deadline(stream, now, self._times.head)
            stream.last = 0.0
            stream.began = now
            return
        self._deadline(stream, now, self._keepalive)
        self._mask(stream, EPOLLIN)

    def _flush(self, stream: Stream) -> None:
        now = monotonic()
        outbox = stream.outbox
        try:
            done = stream.flush()
        except ClientGone:
            self._close(stream)
            return
        if done:
            self._next(stream, now)
            return
        if outbox is not None and (outbox.moved or stream.deadline == NEVER):
            outbox.moved = 0
            self._deadline(stream, now, self._times.send)
        self._mask(stream, WANTS[FLUSH])

    def _refuse(self, stream: Stream, error: HTTPError, now: float) -> None:
        """Answers a request that could not be read, and ends the connection."""
        self._exchange.refuse(stream, error, now)
        stream.phase = CALL
        stream.close_after = True
        stream.sent = 0
        stream.failed = False
        self._after(stream, now)

    def _end(self, stream: Stream) -> None:
        """Closes a stream so that its client can still read what was sent.

        Closing a socket with unread data resets the connection, and the reset may overtake the response (RFC 9112
        section 9.6): the sending half is closed first, and what still comes is dropped until the client closes.
        """
        if stream.reset:
            stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._close(stream)
            return
        if not stream.lingers:
            self._close(stream)
            return
        try:
            stream.sock.shutdown(socket.SHUT_WR)
            if stream.sock.recv(RECEIVE):
                raise BlockingIOError  # there may be more
        except BlockingIOError:
            stream.phase = LINGER
            stream.conn.close()
            self._deadline(stream, monotonic(), self._times.linger)
            self._mask(stream, EPOLLIN)
            return
        except OSError:
            pass  # it is gone already, which is all that was wanted
        self._close(stream)

    def _close(self, stream: Stream) -> None:
        if stream.mask:
            self._epoll.unregister(stream.fd)
            stream.mask = 0
        del self._streams[stream.fd]
        stream.close()
        if not self._listening and not self.retiring and len(self._streams) < self._values.connections:
            self._listen(True)

    def _mask(self, stream: Stream, mask: int) -> None:
        if mask == stream.mask:
            return
        if not stream.mask:
            self._epoll.register(stream.fd, mask)
        elif mask:
            self._epoll.modify(stream.fd, mask)
        else:
            self._epoll.unregister(stream.fd)
        stream.mask = mask

    def _preface(self, stream: Stream, data: bytes) -> bool:
        from sdserve.http import proxy

        stream.preface += data
        try:
            found = proxy.parse(stream.preface, self._values.proxy_protocol)
        except BadRequest as error:
            self._worker.log.warning("%s: %s", stream.peer, error)
            self._close(stream)
            return True
        if found is None:
            self._mask(stream, EPOLLIN)
            return True
        rest = stream.preface[found.size :]
        stream.preface = b""
        if found.source is not None:
            stream.peer = found.source[0]
            stream.base["REMOTE_ADDR"], stream.base["REMOTE_PORT"] = found.source
            stream.proxied = True
            stream.trusted = stream.peer in self._trusted
        stream.phase = HEAD
        if rest:
            stream.conn.receive(rest)
        return self._advance(stream, monotonic())

    # --- deadlines ----------------------------------------------------------------------------------------------------

    def _deadline(self, stream: Stream, now: float, seconds: float) -> None:
        """What the stream does now must be done in `seconds`; 0: never mind."""
        stream.deadline = deadline = now + seconds if seconds else NEVER
        if deadline < self._sweep_at:
            self._sweep_at = deadline

    def _sweep(self, now: float) -> None:
        """Looks at every deadline, at most each `SWEEP` seconds."""
        for stream in [stream for stream in self._streams.values() if stream.deadline <= now]:
            self._expired(stream, now)
        if not self.retiring and len(self._streams) < self._values.connections:
            self._listen(True)
        earliest = min((stream.deadline for stream in self._streams.values()), default=NEVER)
        self._sweep_at = max(earliest, now + SWEEP)

    def _expired(self, stream: Stream, now: float) -> None:
        phase = stream.phase
        if phase is HEAD and stream.conn.buffered:
            self._refuse(stream, RequestTimedOut("the head did not arrive in time"), now)
        elif phase is HEAD and self._last_look(stream, now):
            return
        elif phase is BODY:
            spool = stream.spool
            if spool is not None and not too_slow(self._times, spool.size, now - stream.began):
                self._deadline(stream, now, 1.0)
                return
            self._refuse(stream, RequestTimedOut("the body is slower than the minimum rate"), now)
        else:
            self._close(stream)

    def _last_look(self, stream: Stream, now: float) -> bool:
        """Before an idle connection is closed: has a request arrived after all?"""
        try:
            data = stream.sock.recv(RECEIVE)
        except OSError:
            return False
        if not data:
            return False
        stream.conn.receive(data)
        self._deadline(stream, now, self._times.head)
        stream.last = 0.0
        self._ready.append(stream)
        return True

    # --- retirement ---------------------------------------------------------------------------------------------------

    def _retirement_ends(self, now: float) -> bool:
        """Goes on retiring; True when it is time to leave."""
        worker = self._worker
        if worker.quick:
            return True
        if not self.retiring:
            self.retiring = True
            self._giving = worker.hands_on()
            self._exchange.gateway.open = self._giving
            if self._giving or self._values.reuse_port:
                self._accept_rest()
            self._listen(False)
            if not self._giving:
                self._hurry()
        if self._giving:
            self._give_away()
        if worker.drain_by is not None and now >= worker.drain_by:
            return True
        left = len(self._streams) - sum(1 for stream in self.stuck if stream.phase is CALL)
        return left <= 0 and not self._ready

    def _hurry(self) -> None:
        """Gives active clients time for one more request, and closes the connections of the others."""
        for stream in list(self._streams.values()):
            if stream.phase is HEAD and not stream.conn.buffered:
                stream.deadline = min(stream.deadline, (stream.last or stream.began) + ACTIVE)
        self._sweep(monotonic())

    def _accept_rest(self) -> None:
        """Takes what is queued, to be given away unread, or served where nobody adopts.

        An exclusive wake-up is for one worker: a connection that only we were told of would wait for the next one. And
        with reuse_port the queue of a listener is this worker's own: what is in it would be lost.
        """
        for listener in self._listeners.values():
            before = -1
            while before != len(self._streams):
                before = len(self._streams)
                self._accept(listener, read=False)

    # --- threads ------------------------------------------------------------------------------------------------------

    def _load(self) -> tuple[int | str, int]:
        return self._worker.pid, len(self._streams)

    def _loses_lead(self, stream: Stream, request: Request, now: float) -> bool:
        """Answers a request in this thread, with the lead as long as it lasts. True when the lead was lost."""
        pace, path = self._pace, request.path
        if not pace.calm and self._waiting and pace.expect_slow(path):
            self.running[stream] = (now, threading.get_ident())
            self._ring()
            self._baton.release()
            self._exchange.answer(stream, request, now)
            del self.running[stream]
            if monotonic() - now < SLOW:
                pace.was_quick(path)
            self._give_back(stream)
            return True
        self._calls += 1
        self._table.append(stream)
        if self._parked:
            self._ring()
        self._exchange.answer(stream, request, now)
        try:
            self._table.pop()
        except IndexError:
            with self._switch:
                self.running.pop(stream, None)
            self._give_back(stream)
            return True
        if not pace.calm:
            pace.was_quick(path)
        return False

    def _give_back(self, stream: Stream) -> None:
        """Hands a served stream to whoever leads."""
        self.stuck.discard(stream)
        self._returned.append(stream)
        if not self.stopped:
            eventfd_write(self._wake, 1)

    def _ring(self) -> None:
        """Wakes the watcher."""
        if self._parked:
            self._parked = False
            self._alarm.set()

    def _watch(self) -> None:
        """The watcher: passes on the lead of calls that last, and notices those that last too long.

        It sleeps while nothing is called, so an idle worker is not woken. It is the main thread, which thus stays free
        for signals and for the way out.
        """
        alarm, table, tick = self._alarm, self._table, self._tick
        while not self.stopped:
            self._parked = True
            if not table:
                alarm.wait(self._patience())
            alarm.clear()
            self._parked = False
            seen, quiet = -1, 0
            while quiet < QUIET and not self.stopped:
                tick.acquire(timeout=PROMOTE_AFTER)
                if not table:
                    quiet += 1
                    continue
                quiet = 0
                if self._calls == seen:
                    self._promote()
                seen = self._calls
            if self.running:
                self._look_for_stuck(monotonic())

    def _promote(self) -> None:
        """Takes the lead from a call that lasts, and gives it to a follower."""
        with self._switch:
            try:
                stream = self._table.pop()
            except IndexError:  # it returned just now
                return
            self.running[stream] = (monotonic() - PROMOTE_AFTER, self._caller)
        request = stream.request
        if request is not None:
            self._pace.was_slow(request.path)
        self._baton.release()

    def _patience(self) -> float | None:
        """Seconds until the next call may exceed the time-out, None when none can."""
        if not self._values.timeout:
            return None
        since = [began for stream, (began, _) in list(self.running.items()) if stream not in self.stuck]
        return max(0.0, min(since) + self._values.timeout - monotonic()) + 0.001 if since else None

    def _look_for_stuck(self, now: float) -> None:
        timeout = self._values.timeout
        if not timeout:
            return
        for stream, (began, thread) in list(self.running.items()):
            if now - began >= timeout and stream not in self.stuck:
                self.stuck.add(stream)
                self._worker.request_stuck(stream.request, now - began, thread)
        if len(self.stuck) < self._threads:
            self._worker.request_begins(now)
