"""How a worker leaves: its connections are given to others, or finished here; nothing that has arrived is lost.

The listeners are left at once. What follows depends on who comes after this worker, and that may change meanwhile:

- Other workers serve on: they are given every connection that the application has not been called for, as fast as they
  take them. What they have not taken when the graceful time-out draws near is finished here.
- The service is being restarted, or its master died: idle connections wait in the queue for the next start, as many as
  it holds. Whoever has begun to ask is answered here.
- Who was told by somebody else than the master waits for its word, `ASKING` seconds at most, and serves meanwhile.
- Nobody does: requests that arrived are answered with `Connection: close`. A connection that was active within `ACTIVE`
  seconds is kept until its client has had that long to send its next request, which would otherwise meet a closing
  connection. All others are closed, each after a last look for a request. What somebody left in the queue, when others
  were still there to take it, is taken back and finished as well.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sdserve.process.adoption import DENSE, SPREAD
from sdserve.workers.http.client import EPOLLIN, NEVER, Phase
from sdserve.workers.http.handoff import may_move
from sdserve.workers.wsgi.clients import WSGIClients, has_news, is_idle

if TYPE_CHECKING:
    from sdserve.gateway.wsgi import Gateway
    from sdserve.process.listeners import Listener
    from sdserve.workers.http.acceptor import Acceptor
    from sdserve.workers.http.client import Client
    from sdserve.workers.wsgi.worker import WSGIWorker

ACTIVE = 1.0  # seconds after its last response in which a client's next request is waited for
AGAIN = 0.02  # seconds until those who could not take all connections are offered the rest
ASKING = 1.0  # seconds in which a master answers that does not hang
GIVING = 0.8  # of the graceful time-out is for giving; in the rest of it, what nobody took is finished here
LAST_WORDS = 0.5  # seconds for which what the client of a closed connection still sends is read: see WSGIClients._end


class Retirement:
    """The end of one loop. `accept` takes one connection of a listener, `adopt` those of one message in the queue."""

    def __init__(
        self,
        worker: "WSGIWorker",
        clients: "WSGIClients",
        acceptor: "Acceptor",
        gateway: "Gateway",
        accept: "Callable[[Listener], Client | None]",
        adopt: "Callable[[], list[Client]]",
    ) -> None:
        self._worker = worker
        self._clients = clients
        self._acceptor = acceptor
        self._gateway = gateway
        self._accept = accept
        self._adopt = adopt
        self.begun = False
        self._giving = False
        self._give_until = NEVER
        self._ask_until = NEVER

    def begin(self, now: float, reuse_port: bool) -> None:
        """Leaves the listeners. `reuse_port`: they are this worker's alone."""
        self.begun = True
        if self._worker.orphaned:  # who asks again at once gets its last answer here while there is time for it
            self._give_until = now + ACTIVE
        elif self._worker.drain_by is not None:
            self._give_until = now + GIVING * (self._worker.drain_by - now)
        self._ask_until = now + ASKING
        self._giving = self._worker.hands_on()
        self._gateway.open = self._giving
        if self._worker.has_successors() or reuse_port:
            self._accept_rest()
        self._acceptor.set_open(False)
        if not self._giving:
            self._finish(now)

    def go_on(self, now: float) -> None:
        """One more turn."""
        worker = self._worker
        if self._giving:
            known = worker.knows_who_follows()
            if not worker.hands_on() or now >= (self._give_until if known else self._ask_until):
                self._finish(now)
            elif known:
                self._give_away(now)
            else:  # the master's word wakes the loop
                self._clients.sweep_at = min(self._clients.sweep_at, self._ask_until)
        if not worker.hands_on():
            self._take_back(now)

    def _give_away(self, now: float) -> None:
        clients = self._clients
        if self._worker.has_successors():
            going, most = [client for client in clients if may_move(client)], SPREAD
        else:
            idle = [client for client in clients if is_idle(client) and may_move(client)]
            going, most = [client for client in idle if not has_news(client)], DENSE
        gone, again = self._acceptor.give_away(going, now, most)
        for client in gone:
            clients.close(client)
        if len(gone) == len(going):
            return
        if again and self._worker.has_successors():
            clients.sweep_at = min(clients.sweep_at, now + AGAIN)
        else:
            self._finish(now)

    def _finish(self, now: float) -> None:
        """From now on every answer is the last of its connection."""
        self._giving = False
        self._gateway.open = False
        self._clients.keep_at_most(ACTIVE)
        self._hurry(now)

    def _hurry(self, now: float) -> None:
        """Gives active clients time for one more request, and closes the connections of the others."""
        clients = self._clients
        for client in clients:
            if client.phase is Phase.HEAD and not client.conn.buffered:
                client.deadline = min(client.deadline, (client.last or client.began) + ACTIVE)
        clients.sweep(now)
        for client in clients:
            if client.phase is Phase.LINGER:
                clients.set_deadline(client, now, LAST_WORDS)

    def _take_back(self, now: float) -> None:
        """Takes what others left in the queue for workers that are not there any more."""
        while taken := self._adopt():
            for client in taken:
                self._clients.poll_for(client, EPOLLIN)
            self._hurry(now)

    def _accept_rest(self) -> None:
        """Takes what is queued, to be given away unread, or served where nobody adopts.

        An exclusive wake-up is for one worker: a connection that only we were told of would wait for the next one. And
        with reuse_port the queue of a listener is this worker's own: what is in it would be lost.
        """
        for listener in self._acceptor.listeners.values():
            while client := self._accept(listener):
                self._clients.poll_for(client, EPOLLIN)
