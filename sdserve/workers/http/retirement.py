"""How a worker leaves: its connections are given to others, or finished here; nothing that has arrived is lost.

The listeners are left at once; what waits in those that the service has bound itself is taken first, for nobody would
come for it after the last worker, and once more when the master has said what follows. The rest depends on who comes
after this worker, and that may change meanwhile:

- Other workers serve on: they are given every connection that the application has not been called for, as fast as they
  take them. What they have not taken when the graceful time-out draws near is finished here.
- The service is being restarted, or its master died: idle connections wait in the queue for the next start, as many as
  it holds. A client that has begun to ask is answered here, and waits there as well only when the time is over.
- Somebody else than the master said that it shall leave: it waits for the master's word, `ASKING` seconds at most, and
  serves meanwhile.
- Nobody serves on: requests that arrived are answered with `Connection: close`. A connection that was active within
  `ACTIVE` seconds is kept until its client has had that long to send its next request, which would otherwise meet a
  closing connection. All others are closed, each after a last look for a request. What a worker left in the queue, when
  others were still there to take it, is taken back and finished as well.

Where nobody serves on, others may wait for the next start: a client that falls silent in the middle of its request is
given up after `SILENCE`. When the time is over, or at a quick stop, whatever still waits for its client is cut.
"""

from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Any

from sdserve.http.response import HeadWriter
from sdserve.process.adoption import DENSE, SPREAD
from sdserve.process.giving_up import HANDSHAKE
from sdserve.process.listeners import Listener
from sdserve.workers.base import Worker
from sdserve.workers.http.acceptor import Acceptor
from sdserve.workers.http.client import Client, Phase
from sdserve.workers.http.clients import Clients
from sdserve.workers.http.deadlines import NEVER
from sdserve.workers.http.handoff import may_move

ACTIVE = 1.0  # seconds after its last response in which a client's next request is waited for
AGAIN = 0.02  # seconds until those who could not take all connections are offered the rest
ASKING = 1.0  # seconds in which a master answers that does not hang
GIVING = 0.8  # of the graceful time-out is for giving; in the rest of it, what nobody took is finished here
SILENCE = 5.0  # seconds without a byte of a request that arrives, after which the stop does not wait for it any more
LAST_WORDS = 0.5  # seconds for which what the client of a closed connection still sends is read: see Clients.end
CUT = 0.25  # seconds in which the application ends responses that are cut short: the master kills after twice that


class Retirement:
    """The end of one loop. `heads` are told when answers end their connections."""

    def __init__(self, worker: Worker, clients: Clients[Any], acceptor: Acceptor[Any], heads: HeadWriter) -> None:
        self._worker = worker
        self._clients = clients
        self._acceptor = acceptor
        self._heads = heads
        self._keeps = heads.keeps  # by the configuration
        self.begun = False
        self._giving = False
        self._left_alone = False
        self._hurries = False
        self._held: list[Listener] = []  # of our own, until it is known who follows
        self._give_until = self._ask_until = self._last_look = self._cut_by = NEVER

    @property
    def cutting(self) -> bool:
        """Whether the time is over, and what is left is cut short."""
        return self._cut_by < NEVER

    def is_over(self, now: float, hopeless: int) -> bool:
        """Goes on retiring; True when it is time to leave. `hopeless` calls hang, and nobody waits for them."""
        worker = self._worker
        if worker.quick or self._cut_by < NEVER:
            return self._cuts(now, hopeless)
        if not self.begun:
            self._begin(now)
        if self._held:
            self._look_again(now)
        if worker.orphaned and not self._left_alone:  # from the beginning, or since a moment ago
            self._left_alone = True
            self._give_until = min(self._give_until, now + ACTIVE)  # a client that asks again at once is answered here
        if not self._hurries and worker.knows_who_follows() and not worker.has_successors():
            self._hurries = True
            self._clients.hurry(now, SILENCE, LAST_WORDS)
        if self._giving:
            known = worker.knows_who_follows()
            if not worker.hands_on() or now >= (self._give_until if known else self._ask_until):
                self._finish(now)
            elif known:
                self._give_away(now)
            else:  # the master's word wakes the loop
                self._clients.look_by(self._ask_until)
        if not worker.hands_on():
            self._take_back(now)
        if worker.drain_by is not None and now >= worker.drain_by:
            return self._cuts(now, hopeless)
        return len(self._clients) <= hopeless and not (self._clients.ready or self._held)

    def drain(self, wanted: bool) -> None:
        """A service that drains serves on, but every answer ends its connection, and idle ones are closed."""
        if self.begun:
            return
        self._heads.keeps = self._keeps and not wanted
        if wanted:
            self._clients.keep_at_most(ACTIVE)
            self._hurry(monotonic())
        else:
            self._clients.keep_as_usual()

    def _begin(self, now: float) -> None:
        """Leaves the listeners."""
        worker = self._worker
        self.begun = True
        self._acceptor.balance.leave()
        if worker.drain_by is not None:
            self._give_until = now + GIVING * (worker.drain_by - now)
        self._ask_until = now + ASKING
        self._giving = self._heads.keeps = worker.hands_on()
        # Takes what is queued, to be given away unread, or served where nobody adopts. An exclusive wake-up is for one
        # worker: a connection that only we were told of would wait for the next one. And the queue of a listener of
        # our own ends with the last worker: requests in it would be lost. In systemd's they wait for the next start.
        for listener in self._acceptor.listeners.values():
            if listener.own or worker.has_successors():
                self._take(listener)
            if listener.own:
                self._held.append(listener)
        self._acceptor.set_open(False)
        if not self._giving:
            self._finish(now)

    def _take(self, listener: Listener) -> None:
        self._wait_for(iter(partial(self._acceptor.accept, listener), None))

    def _look_again(self, now: float) -> None:
        """Where nobody serves on, the last look comes when handshakes that had begun are over."""
        worker = self._worker
        if worker.knows_who_follows():  # the master's word wakes the loop
            others = worker.has_successors() or worker.orphaned
            self._last_look = min(self._last_look, now if others else now + HANDSHAKE)
        at = min(self._last_look, self._ask_until)
        if now >= at:
            self._leave_own(now)
        else:
            self._clients.look_by(at)

    def _leave_own(self, now: float) -> None:
        """If nobody serves on, the master has shut them: later clients are refused, and do not wait until the last
        request ends. Those who came before are taken, also where all processes were told to leave at once."""
        held, self._held = self._held, []
        for listener in held:
            self._take(listener)
            listener.close()
        if not self._giving:
            self._hurry(now)

    def _give_away(self, now: float) -> None:
        clients = self._clients
        successors = self._worker.has_successors()
        going = [client for client in clients if may_move(client)]
        if not successors:
            going = [client for client in going if client.is_idle() and not client.has_news()]
        most = self._acceptor.in_a_message(len(going)) if successors else DENSE
        gone, again = self._acceptor.give_away(going, now, most)
        if len(gone) < len(going):
            if again and successors:
                clients.look_by(now + AGAIN)
            else:
                self._finish(now)

    def _finish(self, now: float) -> None:
        """From now on every answer is the last of its connection."""
        self._giving = self._heads.keeps = False
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
        while (taken := self._acceptor.adopt()) is not None:
            self._wait_for(taken)
            self._hurry(now)

    def _wait_for(self, taken: Iterable[Client]) -> None:
        for client in taken:
            try:
                self._clients.wait(client)
            except OSError:  # epoll has no room: the others have
                self._clients.fail(client)

    def _cuts(self, now: float, hopeless: int) -> bool:
        """Time is over: ends whatever waits for its client. True when the application has heard of it.

        At a quick stop calls that run have as long to end: what they leave behind may have to be ended as well.
        """
        if self._cut_by == NEVER:
            self._cut_by = now + CUT
            self._acceptor.set_open(False)
            if not self._worker.quick and self._worker.hands_on():
                self._acceptor.give_away([client for client in self._clients if may_move(client)], now, SPREAD)
        owed = self._clients.cut()
        self._clients.look_by(self._cut_by)
        runs = self._worker.quick and len(self._clients) > hopeless
        return now >= self._cut_by or not (owed or runs)
