"""Where connections come in: the listeners, and the queue of connections that other workers gave away.

Each worker polls the listeners with EPOLLEXCLUSIVE, so a new connection wakes one of them. The queue wakes all: the one
that was woken alone might be about to leave, and nobody would take what it left. The kernel wakes the one that
registered first: a worker that got a connection registers anew and goes to the end of the line, and so does the next.
A worker that is full, out of descriptors, or has more than its share leaves the line for a while: connections stay
queued for the others. When all workers serve, each gives away what it has beyond its share.
"""

import errno
import os
import select
import socket
from itertools import islice
from time import monotonic
from typing import Any, Generic

from sdserve import events
from sdserve.gateway.forwarded import Trusted
from sdserve.process.accept_balance import AcceptBalance
from sdserve.process.adoption import SPREAD
from sdserve.process.counters import ACCEPTED, ADOPTED, GIVEN_AWAY, OPEN
from sdserve.process.listeners import Listener
from sdserve.workers.base import Worker
from sdserve.workers.http import handoff
from sdserve.workers.http.client import EPOLLIN, C, Phase
from sdserve.workers.http.clients import Clients
from sdserve.workers.http.deadlines import NEVER, SWEEP
from sdserve.workers.options import Options

STREAM = int(socket.SOCK_STREAM)
IN_TURN = EPOLLIN | select.EPOLLEXCLUSIVE
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
TELL_EVERY = 10.0  # seconds between two lines about idle connections that made room
CROWDED = 5.0  # seconds that connections wait in the queue for somebody with room for them
STEP_ASIDE = 0.002  # seconds that a worker with more than its share leaves new connections to others


class Acceptor(Generic[C]):
    """Adds the connections that reach `worker` to its `clients`."""

    def __init__(self, worker: Worker, options: Options, epoll: select.epoll, clients: Clients[C]) -> None:
        self._worker = worker
        self._options = options
        self._epoll = epoll
        self._clients = clients
        self.balance = AcceptBalance(worker.cell, options.workers)
        self._proxies: Trusted | None = None
        if options.proxy_protocol != "off":
            self._proxies = Trusted(options.proxy_allow_ips)
            import sdserve.http.proxy  # noqa: F401 - while the disk has it: the first connection may come late
        self.listeners: dict[int, Listener] = {listener.fileno(): listener for listener in worker.sockets}
        self._adoption = worker.adoption
        self.adopting = -1 if self._adoption is None else self._adoption.receive_end.fileno()
        self.alone = options.reuse_port  # other servers have queues of the same address: nobody waits for its turn
        self.open = False
        self._masks = dict.fromkeys(self.listeners, IN_TURN)
        if self.adopting >= 0:
            self._masks[self.adopting] = EPOLLIN
        self._polled: set[int] = set()
        self.shown = 0  # connections, as others see it; -1 if that differs
        self._crowded = False  # full, partly of connections that may be closed for others soon
        self._full_until = 0.0  # out of descriptors, or stepped aside: not before this time again
        self._room_by = -NEVER  # until then others may take from the queue what finds no room here
        self._closed, self._told_at = 0, 0.0  # connections that made room, and when the log heard of it
        for listener in self.listeners.values():
            if isinstance(listener.address, tuple):
                listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what it accepts

    def set_open(self, wanted: bool) -> None:
        """Whether connections are taken. Raises OSError where epoll has no memory; to be said again then."""
        if wanted == self.open and len(self._polled) == (len(self._masks) if wanted else 0):
            return
        if not wanted:
            self.open = False
        for fd in self._masks:
            self._poll_for(fd, wanted)
        self.open = wanted

    def _poll_for(self, fd: int, wanted: bool) -> None:
        if wanted and fd not in self._polled:
            self._epoll.register(fd, self._masks[fd])
            self._polled.add(fd)
        elif not wanted and fd in self._polled:
            self._epoll.unregister(fd)
            self._polled.discard(fd)

    def start(self) -> None:
        """Connections are taken from now on, in turn where workers share their queue."""
        self.set_open(True)
        if not self.alone:
            self.balance.join()

    def reopen(self) -> None:
        """A worker that was full and is not any more takes connections again."""
        if self._crowded or len(self._clients) < self._options.connections:
            if monotonic() >= self._full_until:
                self._crowded = False
                self.start()
            else:  # a sweep knows nothing of this
                self._clients.look_by(self._full_until)

    def tell_others(self) -> None:
        """How many connections this worker holds, as others want to know."""
        self.shown = held = len(self._clients)
        self.balance.hold(held)
        self._worker.counters.set(OPEN, held)

    def _pause(self, seconds: float) -> None:
        """Leaves the line; `reopen` brings the worker back."""
        self.set_open(False)
        self._full_until = monotonic() + seconds
        self._clients.look_by(self._full_until)

    def _is_full(self) -> bool:
        """Connections stay queued, for other workers or for later."""
        if len(self._clients) < self._options.connections:
            return False
        self.set_open(False)
        self.balance.leave()
        return True

    def accept_in_turn(self, fd: int) -> C | None:
        """One connection of a listener that is ready, unless it is another worker's turn."""
        if self.balance.steps_aside(monotonic()):
            self._pause(STEP_ASIDE)
            return None
        client = self.accept(self.listeners[fd])
        if client is not None:
            self.shown = -1
            if self.balance.took(len(self._clients)):
                self.to_the_end_of_the_line(fd)
        return client

    def to_the_end_of_the_line(self, fd: int) -> None:
        """Registers anew for one listener: its next connection wakes another worker, if one waits."""
        if self.open:
            self.open = False  # should this fail, it is opened again
            self._poll_for(fd, False)
            self._poll_for(fd, True)
            self.open = True

    def accept(self, listener: Listener) -> C | None:
        """One connection from the queue of a listener; room is made for it where none is left."""
        clients, worker = self._clients, self._worker
        if len(clients) >= self._options.connections:
            if not _has_news(listener):  # another worker was quicker, or this one just looks because it leaves
                return None
            if not self._has_made_room() and self._is_full():
                if any(client.is_idle() for client in clients):  # there may be room in a moment
                    self._crowded = True
                    self._pause(SWEEP)
                return None
        while True:
            try:
                return self._accept(listener)
            except OSError as error:  # the connection stays queued, for this worker, for others, or for later
                if error.errno in FULL and self._has_made_room():
                    continue
                worker.log.event(events.ACCEPT_FAILED, LISTENER=listener, REASON=error, **self._state())
                self._pause(SWEEP)
                return None

    def _accept(self, listener: Listener) -> C | None:
        while True:
            try:
                # What `accept` calls. The object that it makes of the descriptor costs more than a whole request.
                fd, address = listener.sock._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, ConnectionAbortedError):  # another worker was quicker, or its client gave up
                return None
            except OSError as error:
                if error.errno == errno.EINVAL:  # the address has been given up, which this worker is about to hear
                    return None
                raise
            sock = socket.SocketType(listener.family, STREAM, 0, fd)
            peer = (str(address[0]), str(address[1])) if isinstance(address, tuple) else ("", "")
            try:
                sock.setblocking(False)
                client = self._clients.welcome(sock, listener, peer)
            except OSError as error:  # of this connection alone; its client has gone meanwhile, as a rule
                self._worker.log.debug("%s: cannot be welcomed: %s", peer[0] or "unix", error)
                sock.close()
                continue
            self._begin(client, peer[0])
            return client

    def _begin(self, client: C, peer: str) -> None:
        """Expects the first bytes of a client, which has come from `peer`."""
        phase = Phase.PREFACE if self._proxies is not None and peer in self._proxies else Phase.HEAD
        self._clients.add(client, monotonic(), self._options.times.head, phase)
        self._worker.counters.add(ACCEPTED)

    def _has_made_room(self) -> bool:
        """Closes connections of which nobody waits for an answer; False when there is none."""
        now = monotonic()
        closed = self._clients.close_idle(now)
        self._closed += closed
        if closed and now - self._told_at > TELL_EVERY:
            self._worker.log.event(events.CONNECTIONS_FULL, CLOSED=self._closed, **self._state(closed))
            self._closed, self._told_at = 0, now
        return closed > 0

    def _state(self, closed: int = 0) -> dict[str, Any]:
        """What an event says of this worker, which has just closed so many connections."""
        return {"WORKER_PID": self._worker.pid, "CONNECTIONS": len(self._clients) + closed}

    def adopt_if_room(self) -> list[C]:
        """As `adopt`, but others may have fewer, or room. Where nobody has, idle connections make room at last."""
        full = len(self._clients) >= self._options.connections
        if full and (self._waits_for_room(errno.EMFILE) or not self._has_made_room()):
            self.balance.leave()
            self._crowded = True
            self._pause(SWEEP)
            return []
        if self.balance.leaves_to_others(monotonic()):
            self._pause(STEP_ASIDE)
            return []
        return self.adopt() or []

    def adopt(self) -> list[C] | None:
        """The connections of one message from the queue, which may have something to read already: perhaps none, where
        their clients have gone. None when there is no message, or no room for one.

        Without room for all they wait there, for others or for later, but not for ever: idle connections are closed for
        them then, and where there are none, those that find no room.
        """
        if self._adoption is None:
            return None
        try:
            taken = self._adoption.take()
        except OSError as error:
            if error.errno not in FULL:
                raise
            if self._waits_for_room(error.errno):
                self._pause(SWEEP)
                return None
            if self._has_made_room():
                return []
            taken = self._adoption.take(all_or_none=False)
        if taken is None:
            return None
        now = monotonic()
        adopted = []
        for handed in taken:
            listener = handoff.listener_of(handed, self.listeners.values())
            try:
                if listener is None:
                    raise OSError(errno.EADDRNOTAVAIL, "there is no listener any more")
                peer = handoff.peer_of(handed)
                client = self._clients.welcome(handed.sock, listener, peer)
            except OSError:  # its client has gone meanwhile, and has no address any more
                handed.sock.close()
                continue
            if handed.new:
                self._begin(client, peer[0])
            else:
                self._clients.adopt(client, handed, now)
            adopted.append(client)
        self._worker.counters.add(ADOPTED, len(adopted))
        self.shown = -1
        self.balance.adopted(len(self._clients))
        return adopted

    def _waits_for_room(self, why: int) -> bool:
        """Whether what finds no room here, for this errno, is left in the queue for a while: others may have room."""
        now = monotonic()
        if now >= self._room_by + CROWDED:  # this is another crowd than the last one
            self._room_by = now + CROWDED
            self._worker.log.event(events.ADOPTION_FULL, REASON=os.strerror(why), SECONDS=CROWDED, **self._state())
        return now < self._room_by

    def share(self) -> None:
        """As many workers serve as are wanted: idle connections beyond this one's share are given to the others."""
        if not self._worker.alive:
            return
        self.tell_others()
        if surplus := self.balance.surplus():
            idle = (client for client in self._clients if client.is_idle() and not client.has_news())
            self.give_away(list(islice(idle, surplus)), monotonic(), self.in_a_message(surplus))
            self.tell_others()

    def in_a_message(self, connections: int) -> int:
        """How many of these go in one message, so that each of those who serve gets some."""
        return max(1, min(SPREAD, connections // (4 * self._options.workers)))

    def give_away(self, clients: list[C], now: float, most: int) -> tuple[list[C], bool]:
        """Offers connections to others, up to `most` at a time, and closes those that went; returns them, and whether
        more may later."""
        if self._adoption is None:
            return [], False
        gone, again = handoff.give_away(self._adoption, clients, now, most)
        for client in gone:
            client.given = True
            self._clients.close(client)
        self._worker.counters.add(GIVEN_AWAY, len(gone))
        return gone, again


def _has_news(listener: Listener) -> bool:
    """Whether a connection waits in its queue."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
