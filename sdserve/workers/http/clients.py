"""The open connections of a loop, and the one door for every move of theirs: added, kept, parked, given away, closed.

A client's phase, what epoll is told of it, and its deadline change together, and only here (`MOVES` in client.py says
which phase may follow which; the fuzzer of the loop holds every move against it). How requests are read and answered is
what subclasses add.
"""

import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from heapq import nsmallest
from time import monotonic
from typing import Generic

from sdserve.gateway.forwarded import TRUSTED, UNNAMED, Trusted
from sdserve.http.errors import BadRequest, HTTPError, IllegalMove, RequestTimedOut
from sdserve.log import Logger
from sdserve.process.adoption import HandedConnection
from sdserve.process.counters import CounterCell
from sdserve.process.listeners import Listener
from sdserve.workers.http.account import Account
from sdserve.workers.http.client import EPOLLIN, EPOLLOUT, MOVES, RECEIVE, C, Phase
from sdserve.workers.http.deadlines import NEVER, Deadlines, after
from sdserve.workers.options import Options

LATE = 1.0  # seconds more for what has arrived in time and was not read in time
SETTLED = 1.0  # seconds in which the next request of a connection is expected, for want of room or not
ROOM = 32  # idle connections that are closed at a time, at most, for want of room
PREFACE, HEAD, BODY, CALL = Phase.PREFACE, Phase.HEAD, Phase.BODY, Phase.CALL
FLUSH, LINGER, CLOSED, READ = Phase.FLUSH, Phase.LINGER, Phase.CLOSED, Phase.READ
READING = (PREFACE, HEAD, BODY, READ)


class Clients(Account, Deadlines, Generic[C]):
    """Clients by descriptor. `busy`, `idle` and `counters` are the account's."""

    def __init__(
        self,
        epoll: select.epoll,
        options: Options,
        log: Logger,
        busy: Callable[[float], None],
        idle: Callable[[], None],
        counters: CounterCell,
    ) -> None:
        super().__init__(busy, idle, counters)
        self._epoll = epoll
        self._options = options
        self._times = options.times
        self._keepalive = options.times.keepalive
        self._trusted = Trusted(options.forwarded_allow_ips)
        self._log = log
        self.open: dict[int, C] = {}
        self.ready: deque[C] = deque()  # with a whole request in their buffer, perhaps

    def __iter__(self) -> Iterator[C]:
        return iter(list(self.open.values()))

    def __len__(self) -> int:
        return len(self.open)

    # --- what a worker class says of its own --------------------------------------------------------------------------

    def make(self, sock: socket.SocketType, listener: Listener, peer: tuple[str, str]) -> C:
        """The client of a new connection. Raises OSError when it has gone already."""
        raise NotImplementedError

    def refuse(self, client: C, error: HTTPError, now: float) -> None:
        """Answers a request that could not be read, and ends the connection."""
        self.close(client)

    def leaves(self, client: C) -> None:
        """A connection is about to be closed: tells whoever has something to do with it."""

    def abandon(self, client: C) -> None:
        """Something went wrong with what was done for a client: nothing more becomes of it."""

    def welcome(self, sock: socket.SocketType, listener: Listener, peer: tuple[str, str]) -> C:
        """A client that came in by `listener`; `peer` is its address and port. Raises OSError as `make` does."""
        client = self.make(sock, listener, peer)
        client.listener = listener.label
        client.standing = TRUSTED if peer[0] in self._trusted else 0
        if isinstance(listener.address, str):
            client.standing |= UNNAMED
        return client

    def add(self, client: C, now: float, seconds: float, phase: Phase = HEAD) -> None:
        """A new client, of which something is expected within `seconds`."""
        if client.fd in self.open:  # the application has closed that descriptor, and the kernel has given it out again
            self._forget(self.open[client.fd])
        self.open[client.fd] = client
        if phase is not HEAD:
            client.phase = phase
        client.began = now
        self.set_deadline(client, now, seconds)

    def adopt(self, client: C, handed: HandedConnection, now: float) -> None:
        """A client from another worker, idle or with a part of a request."""
        patience = self._times.keepalive or self._times.head
        self.add(client, now, patience)
        client.proxied = bool(handed.peer)
        client.last = min(now, handed.since or now)
        self.set_deadline(client, client.last, patience)
        if handed.data:
            client.conn.receive(handed.data)
            client.last = 0.0
            client.began = now - handed.head
            client.waited = handed.body
            self.set_deadline(client, client.began, self._times.head)
            self.queue(client)

    def read_preface(self, client: C, data: bytes) -> bool:
        """Reads the PROXY header that comes first; True when a head may follow. What is none ends the connection."""
        from sdserve.http import proxy

        client.preface += data
        try:
            found = proxy.parse(client.preface, self._options.proxy_protocol)
        except BadRequest as error:
            self.complain(client, error)
            self.close(client)
            return False
        if found is None:
            self.poll_for(client, EPOLLIN)
            return False
        client.conn.receive(client.preface[found.size :])
        client.preface = b""
        client.phase = HEAD
        if found.source is not None:
            client.name_peer(found.source)
            client.standing = client.standing & UNNAMED | (TRUSTED if client.peer in self._trusted else 0)
        return True

    def complain(self, client: C, error: Exception) -> None:
        """Says what a client did that is no request."""
        self._log.warning("%s: %s", client.peer, error)

    def enter(self, client: C, phase: Phase, due: float) -> None:
        """A client waits for something, until `due` at most."""
        if phase not in MOVES[client.phase]:
            raise IllegalMove(f"from {client.phase.name} to {phase.name}")
        client.phase = phase
        client.deadline = due
        self.look_by(due)
        self.wait(client)

    def called(self, client: C, now: float) -> None:
        """The application has the client's request, or goes on with it."""
        client.phase = CALL
        client.called = now
        client.deadline = NEVER
        if now >= self._mark_again:
            self.turn(now)

    def keep(self, client: C, now: float) -> None:
        """A client was answered, and its next request is waited for."""
        client.phase = HEAD
        client.last = now
        deadline = client.deadline = now + self._keepalive
        if deadline < self.sweep_at:
            self.sweep_at = deadline
        if client.mask != EPOLLIN:
            self.poll_for(client, EPOLLIN)

    def pipelined(self, client: C, now: float) -> None:
        """A client was answered, and its next request has come already."""
        client.phase = HEAD
        client.last = 0.0
        client.began = now
        self.set_deadline(client, now, self._times.head)
        self.queue(client)

    def queue(self, client: C) -> None:
        """Has the client go on in its turn. Nothing more is read before that: a client holds one buffer."""
        client.queued = True
        self.ready.append(client)

    def wait(self, client: C) -> None:
        """Waits for what the client's phase waits for: bytes of its peer, room for what was sent, or both."""
        mask = EPOLLIN if client.phase is not FLUSH else 0
        self.poll_for(client, mask if client.unsent is None else mask | EPOLLOUT)

    def poll_for(self, client: C, mask: int) -> None:
        """Tells epoll what to report of a client; 0: nothing."""
        if mask == client.mask:
            return
        if not client.mask:
            self._epoll.register(client.fd, mask)
        elif mask:
            self._epoll.modify(client.fd, mask)
        else:
            self._epoll.unregister(client.fd)
        client.mask = mask

    def end(self, client: C) -> None:
        """Closes a connection so that its client can still read what was sent.

        Closing a socket with unread data resets the connection, and the reset may overtake the response (RFC 9112
        section 9.6): the sending half is closed first, and what still comes is dropped until the client closes.
        """
        if client.reset:
            client.reset_at_close()
        elif client.lingers:
            try:
                client.sock.shutdown(socket.SHUT_WR)
                if client.sock.recv(RECEIVE):
                    raise BlockingIOError  # there may be more
            except BlockingIOError:
                client.conn.close()
                self.enter(client, LINGER, after(monotonic(), self._times.linger))
                return
            except OSError:
                pass  # it is gone already, which is all that was wanted
        self.close(client)

    def close(self, client: C) -> None:
        """Forgets a client and closes its connection; nothing happens if that was done before."""
        self.leaves(client)
        if self.open.get(client.fd) is not client:
            return
        if client.mask:
            client.mask = 0
            with suppress(OSError):  # the application may have closed it
                self._epoll.unregister(client.fd)
        del self.open[client.fd]
        client.close()

    def _forget(self, client: C) -> None:
        """Lets go of a client whose descriptor means something else by now."""
        self.leaves(client)
        del self.open[client.fd]
        client.mask = 0
        client.sock.detach()
        client.close()

    def fail(self, client: C) -> None:
        """Logs the exception in progress and ends the connection that it was for. Never raises."""
        request, phase = client.request, client.phase.name.lower()
        what = f"{request.method} {request.uri}" if request is not None else f"a connection in its phase {phase}"
        self._log.exception("Error of the server with %s of %s, which is closed", what, client.peer or "unix")
        client.request = None
        try:
            self.abandon(client)
            self.close(client)
        except BaseException as error:  # noqa: BLE001 - it is not among the open ones by now
            self._log.debug("%s: cannot be closed in order: %r", client.peer, error)
            client.sock.close()

    def cut(self) -> bool:
        """Closes every connection but those that the application has; whether it still has to hear of some."""
        for client in self:
            if client.phase is not CALL:
                self.close(client)
        return False

    def close_in_child(self) -> None:
        """In a process that the application has forked: these are not its connections, and it must not touch epoll."""
        for client in self.open.values():
            client.sock.close()
            client.fd = -1

    def close_idle(self, now: float) -> int:
        """Closes a few connections on which no request has begun, for want of room; returns how many.

        Those that never sent a byte go first, the oldest first; if there are none, those that were answered longest
        ago. Clients that have just come, or have just been answered, are left alone: their next request may be under
        way.
        """
        idle = [client for client in self.open.values() if client.is_idle()]
        useless = [client for client in idle if not client.last] or idle
        settled = [client for client in useless if (client.last or client.began) <= now - SETTLED]
        few = min(ROOM, 1 + len(self.open) // 8)
        chosen = nsmallest(few, settled, key=lambda client: client.last or client.began)
        closed = [client for client in chosen if not client.has_news()]
        for client in closed:
            self.close(client)
        return len(closed)

    def keep_at_most(self, seconds: float) -> None:
        """From now on connections are kept idle for no longer than this."""
        self._keepalive = min(self._keepalive, seconds)

    def keep_as_usual(self) -> None:
        """From now on they are kept idle for as long as the configuration says."""
        self._keepalive = self._times.keepalive

    def hurry(self, now: float, silence: float, last_words: float) -> None:
        """From now on a request that arrives is given up when nothing of it has come for `silence` seconds, and what a
        client sends after its last answer is read for no longer than `last_words` seconds."""
        times = self._times
        head, idle = (min(each or NEVER, silence) for each in (times.head, times.body_idle))
        linger = min(times.linger or NEVER, last_words)
        self._times = times = times.replace(head=head, body_idle=idle, linger=linger)
        for client in self:
            due = NEVER
            if client.phase is PREFACE or (client.phase is HEAD and client.conn.buffered):
                due = now + head
            elif client.arrival is not None:
                client.arrival.hurry(times)
                if self.waits_for_body(client):
                    due = max(now + SETTLED, client.arrival.due())
            client.deadline = min(client.deadline, due)
            self.look_by(client.deadline)

    def sweep(self, now: float) -> None:
        """Looks at every deadline."""
        for client in [client for client in self.open.values() if client.deadline <= now]:
            try:
                self.expired(client, now)
            except BaseException:  # noqa: BLE001 - it would be the first one at each sweep
                self.fail(client)
        self.looked(self.open.values(), now)

    def expired(self, client: C, now: float) -> None:
        """A deadline has passed: the client is told so if it was asking for something, and the connection ends."""
        phase = client.phase
        if client.queued:  # it is we who are late
            self.set_deadline(client, now, self._times.head)
        elif phase in READING and client.has_news():
            self.set_deadline(client, now, LATE)
        elif phase is HEAD and client.conn.buffered:
            self.refuse(client, RequestTimedOut("the head did not arrive in time"), now)
        elif phase in (BODY, READ):
            self.body_is_due(client, now)
        elif phase is HEAD:
            self.end(client)
        else:
            self.close(client)

    def waits_for_body(self, client: C) -> bool:
        """Whether nothing happens before more of a client's body has come."""
        return client.phase in (BODY, READ)

    def body_is_due(self, client: C, now: float) -> None:
        """The deadline of a body that arrives has passed; more of it may have come since that was set."""
        self.close(client)
