"""Where connections come in: the listeners, and the queue of connections that other workers gave away.

Each worker polls the listeners with EPOLLEXCLUSIVE, so a new connection wakes one of them. The queue wakes all: the one
that was woken alone might be about to leave, and nobody would take what it left. The kernel wakes the one that
registered first: a worker that got a connection registers anew and goes to the end of the line, and so does the next.
A worker that is full, or out of descriptors, leaves the line: connections stay queued for the others.
"""

import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from sdserve.gateway.forwarded import Trusted
from sdserve.gateway.wsgi import TRUSTED, UNNAMED, Environ
from sdserve.http.connection import Connection
from sdserve.http.names import Names
from sdserve.http.request import RequestReader
from sdserve.workers.http import handoff
from sdserve.workers.http.client import EPOLLIN, Client, Phase
from sdserve.workers.options import Options
from sdserve.workers.wsgi.takeover import GUNICORN, HINTS, WERKZEUG, ClientSocket

if TYPE_CHECKING:
    from sdserve.process.adoption import HandedConnection
    from sdserve.process.listeners import Listener
    from sdserve.workers.base import Worker
    from sdserve.workers.http.write_buffer import Store

STREAM = int(socket.SOCK_STREAM)
IN_TURN = EPOLLIN | select.EPOLLEXCLUSIVE

Base = Callable[["Listener", socket.SocketType, tuple[str, str]], Environ]


class Acceptor:
    """Makes clients of the connections that reach `worker`. `base` gives what a connection's environs share, `names`
    the keys of header fields in them, `store` is where responses wait for their clients."""

    def __init__(
        self, worker: "Worker", options: Options, epoll: select.epoll, base: Base, names: Names, store: "Store"
    ) -> None:
        self._worker = worker
        self._options = options
        self._epoll = epoll
        self._base = base
        self._store = store
        self._reader = RequestReader(options.limits, names)
        self._trusted = Trusted(options.forwarded_allow_ips)
        self._proxies = Trusted(options.proxy_allow_ips) if options.proxy_protocol != "off" else None
        self.listeners: dict[int, Listener] = {listener.fileno(): listener for listener in worker.sockets}
        self._adoption = worker.adoption
        self.adopting = -1 if self._adoption is None else self._adoption.receive_end.fileno()
        self.open = False
        self._masks = dict.fromkeys(self.listeners, IN_TURN)
        if self.adopting >= 0:
            self._masks[self.adopting] = EPOLLIN
        self._polled: set[int] = set()
        self.on_take: Callable[[Client], None] = lambda client: None  # hears of connections that applications take over
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

    def accept(self, listener: "Listener") -> Client | None:
        """One connection from the queue of a listener; None when there is none.

        Raises OSError when descriptors or memory ran out: the connection stays queued.
        """
        try:
            # What `accept` calls. The object that it makes of the descriptor costs more than a whole request.
            fd, address = listener.sock._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, ConnectionAbortedError):  # another worker was quicker, or its client gave up
            return None
        sock = socket.SocketType(listener.family, STREAM, 0, fd)
        peer = (str(address[0]), str(address[1])) if isinstance(address, tuple) else ("", "")
        try:
            sock.setblocking(False)
            client = self._welcome(sock, listener, peer)
        except OSError as error:  # of this connection alone; its client has gone meanwhile, as a rule
            self._worker.log.debug("%s: cannot be welcomed: %s", peer[0] or "unix", error)
            sock.close()
            return self.accept(listener)
        if self._proxies is not None and peer[0] in self._proxies:
            client.phase = Phase.PREFACE
        return client

    def to_the_end_of_the_line(self, fd: int) -> None:
        """Registers anew for one listener: its next connection wakes another worker, if one waits."""
        if self.open:
            self.open = False  # should this fail, it is opened again
            self._poll_for(fd, False)
            self._poll_for(fd, True)
            self.open = True

    def adopt(self, *, all_or_none: bool = True) -> "list[tuple[Client, HandedConnection]]":
        """The connections that another worker gave away; they may have something to read already.

        Raises OSError when there is no room for them: they stay in the queue. Not `all_or_none`: some are closed then.
        """
        if self._adoption is None:
            return []
        clients = []
        for handed in self._adoption.take(all_or_none=all_or_none):
            listener = handoff.listener_of(handed, self.listeners.values())
            if listener is None:
                handed.sock.close()
                continue
            try:
                client = self._welcome(handed.sock, listener, handoff.peer_of(handed))
            except OSError:  # its client has gone meanwhile, and has no address any more
                handed.sock.close()
                continue
            client.proxied = bool(handed.peer)
            clients.append((client, handed))
        return clients

    def give_away(self, clients: list[Client], now: float, most: int) -> tuple[list[Client], bool]:
        """Offers connections to others, up to `most` at a time; returns those that went, and whether more may later."""
        assert self._adoption is not None
        return handoff.give_away(self._adoption, clients, now, most)

    def read_preface(self, client: Client, data: bytes) -> bool:
        """Reads the PROXY header that comes first; True when it is complete. Raises BadRequest."""
        from sdserve.http import proxy

        client.preface += data
        found = proxy.parse(client.preface, self._options.proxy_protocol)
        if found is None:
            return False
        client.conn.receive(client.preface[found.size :])
        client.preface = b""
        client.phase = Phase.HEAD
        if found.source is not None:
            client.peer = found.source[0]
            client.base["REMOTE_ADDR"], client.base["REMOTE_PORT"] = found.source
            client.proxied = True
            client.standing &= UNNAMED
            if client.peer in self._trusted:
                client.standing |= TRUSTED
        return True

    def _welcome(self, sock: socket.SocketType, listener: "Listener", peer: tuple[str, str]) -> Client:
        options = self._options
        base = self._base(listener, sock, peer)
        conn = Connection(self._reader, options.limits, base.copy)
        client = Client(sock, conn, base, peer[0], self._store)
        client.listener = listener.label
        client.standing = TRUSTED if peer[0] in self._trusted else 0
        if isinstance(listener.address, str):
            client.standing |= UNNAMED
        base[GUNICORN] = base[WERKZEUG] = seen = ClientSocket(client, self.on_take)
        base[HINTS] = seen.early_hints
        return client
