"""A client of the ASGI worker: its call, and what it has not taken yet."""

import select
import socket

from sdserve.gateway.asgi_call import Call
from sdserve.gateway.environ import Environ
from sdserve.gateway.scope import Address
from sdserve.http.connection import Connection, State
from sdserve.workers.asgi.bursts import Burst
from sdserve.workers.http.client import Client
from sdserve.workers.http.write_buffer import Store

BODY = State.BODY


class ASGIClient(Client):
    """`server` is where it was accepted, `address` who it is, as scopes have them; it waits for `call`."""

    __slots__ = ("address", "burst", "call", "given_at", "server")

    waits_in_send = False  # nobody may: `send` of a call has waited before

    def __init__(
        self,
        sock: socket.SocketType,
        conn: Connection,
        base: Environ,
        peer: tuple[str, str],
        store: Store,
        server: Address,
    ) -> None:
        super().__init__(sock, conn, base, peer, store)
        self.server = server
        self.address = (peer[0], int(peer[1])) if peer[0] else None
        self.call: Call | None = None
        self.burst: Burst | None = None  # where an answer goes that is sent in pieces
        self.given_at = 0.0  # since when it owes nothing of the body: the application has that, or room is waited for

    def name_peer(self, peer: tuple[str, str]) -> None:
        super().name_peer(peer)
        self.address = (peer[0], int(peer[1])) if peer[0] else None

    def received(self, data: bytes, now: float) -> bool:
        """Bytes of HTTP have come, while the application has the request; whether they are of its body."""
        conn = self.conn
        conn.receive(data)
        if conn.state is not BODY or self.arrival is None:
            return False
        self.arrival.received(len(data), now)
        return True

    def reported(self) -> int:
        """The events of its socket, as epoll would report them now; those of an end only."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        found = poll.poll(0)
        return found[0][1] if found else 0

    @property
    def owed(self) -> int:
        """Bytes that the peer has not taken."""
        if self.unsent is not None:
            return self.unsent.left
        return self.burst.size if self.burst is not None else 0

    def forget_unsent(self) -> None:
        super().forget_unsent()
        if self.burst is not None:
            self.burst.forget()
            self.burst = None

    def describe(self, seconds: float) -> str:
        what, call = self.request_line, self.call
        sent = f" and sent {call.sent} bytes" if call is not None and call.head_sent else ""
        return f"{what} has run for {seconds:.1f} s{sent}"
