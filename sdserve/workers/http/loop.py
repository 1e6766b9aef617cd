"""What the loops of all worker classes have in common: what is polled besides clients, counting, failing, closing.

How a turn goes is a worker class's own. In all of them events come before deadlines: what is due is judged by the time
of the last poll, so that nothing is due whose data came while a call kept the loop. Whatever goes wrong in a turn ends
the connection it was for, nothing else; what goes wrong with the loop itself is a matter of guard.py.
"""

import select
import time
from collections import deque
from time import monotonic
from typing import Generic

from sdserve import events
from sdserve.process import forked
from sdserve.process.counters import POLLS
from sdserve.workers.base import Worker
from sdserve.workers.guard import Guard
from sdserve.workers.http.acceptor import Acceptor
from sdserve.workers.http.client import EPOLLIN, C, Phase, Running
from sdserve.workers.http.clients import Clients
from sdserve.workers.http.exchange import Exchange
from sdserve.workers.http.retirement import Retirement
from sdserve.workers.lasting import Lasting
from sdserve.workers.options import Options

EVENTS = 32  # of one poll
BATCH = 4  # turns of `ready` between two polls: one request at a time need not wait for clients that send many


class Loop(Generic[C]):
    """Serves the listeners of `worker` until that says otherwise. `exchange` answers requests of `clients`."""

    def __init__(
        self, worker: Worker, options: Options, epoll: select.epoll, clients: Clients[C], exchange: Exchange[C]
    ) -> None:
        self._worker = worker
        self._options = options
        self._epoll = epoll
        self._clients = clients
        self._exchange = exchange
        self._acceptor = Acceptor(worker, options, epoll, clients)
        self._retirement = Retirement(worker, clients, self._acceptor, exchange.heads)
        self._pending: deque[tuple[int, int]] = deque()  # events polled and not yet handled
        self._polled = 0.0  # when the last poll returned
        self._guard = Guard()
        self._fatal: BaseException | None = None
        self._control: set[int] = set()
        for fd in worker.control_fds():
            self._add_control(fd)
        worker.rewired = self._add_control
        worker.drains = self._retirement.drain
        worker.shares = self._acceptor.share

    def get_ready(self) -> None:
        """Polls the listeners: connections wait in their queues until `run`. Raises OSError."""
        self._acceptor.start()

    def run(self) -> None:
        """Serves, after `get_ready`; returns when the worker has retired, or must leave."""
        self._worker.counters.set(POLLS, 1)
        self._serve()
        if not self._worker.quick:
            self.name_what_is_cut()
        self._close_all()
        if self._fatal is not None:
            raise self._fatal

    def _serve(self) -> None:
        """Turns until all is over."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Has `_serve` return."""
        raise NotImplementedError

    def _leads(self) -> bool:
        """Whether this thread is still the one that polls."""
        return True

    def _close_all(self) -> None:
        self.count_last()
        for client in self._clients:
            if client.phase is not Phase.CALL:
                client.close()
        self._epoll.close()
        self._exchange.interrupted()
        if self._exchange.access is not None:
            self._exchange.access.flush()

    def close_in_child(self) -> None:
        """In a process that the application has forked: closes what polls, and all that is polled."""
        self._epoll.close()
        self._clients.close_in_child()

    def calls(self) -> list[Running]:
        """The requests that the application has now, for the log."""
        now = monotonic()
        return [client.running(now) for client in self._clients if client.runs and client.request is not None]

    def lasting(self) -> list[Lasting]:
        """The same for who looks. Another thread may be at work: each request is looked at once."""
        return [
            Lasting(client.answers, client.running_since, f"{request.method} {request.path}")
            for client in self._clients
            if client.runs and (request := client.request) is not None
        ]

    def name_what_is_cut(self) -> None:
        """Tells the log of requests that have not ended when the worker must, or when only such as hang are left."""
        over = monotonic() >= (self._worker.drain_by or 0.0)
        limit = "orphan_timeout" if self._worker.orphaned else "graceful_timeout"
        self._name_cut(f"{limit} is over" if over else "it hangs, and its worker has finished everything else")

    def _name_cut(self, why: str) -> None:
        for call in self.calls():
            self._worker.log.event(events.REQUEST_CUT, REASON=why, **call.about(self._worker.pid))

    def _survives(self, client: C | None, error: BaseException) -> bool:
        """After an exception in a turn, `client` being what it was for. False when the turn is not to go on.

        Where no connection is to blame the same may happen at once again: guard.py says what becomes of the loop.
        """
        worker = self._worker
        if forked.child:
            forked.leave(worker.log.error, error)
        if not self._leads():
            worker.log.exception("Error in a thread of worker %s that had lost the lead", worker.pid)
            return False
        if client is not None:
            self._clients.fail(client)
            return True
        verdict = self._guard.failed(monotonic(), self._polled)
        unheard = verdict.replaced and not worker.ask_for_replacement("fails again and again")
        if verdict.over or unheard:
            worker.log.critical("Worker %s cannot go on: %r", worker.pid, error)
            self._fatal = error
            self._stop()
            return False
        worker.log.exception("Error in the loop of worker %s, which goes on", worker.pid)
        return self._pauses(verdict.pause)

    def _pauses(self, seconds: float) -> bool:
        """Leaves the loop alone for a while. False when the turn is not to go on: another one follows then."""
        time.sleep(seconds)
        return True

    def _count(self) -> None:
        """Counts what was answered: before each rest, and in time where there is none, for max_requests."""
        self._worker.count_requests(self._clients.take_count(), self._clients.marked_at)

    def count_last(self) -> None:
        """Counts what was answered, for others to see: this worker does not come to rest any more."""
        self._clients.take_count()

    def _reopen(self) -> None:
        if not self._retirement.begun:
            self._acceptor.reopen()

    def _add_control(self, fd: int) -> None:
        """One more descriptor that tells the worker something."""
        self._control.add(fd)
        self._epoll.register(fd, EPOLLIN)

    def _other(self, fd: int) -> bool:
        """An event of something that is no client. False when the lead was lost."""
        acceptor, worker, pending = self._acceptor, self._worker, self._pending
        if fd in self._control:
            worker.handle_control(fd)
        elif not (acceptor.open and worker.alive):  # told to leave, it takes what is queued in retirement.py
            acceptor.set_open(False)  # it was not possible when it was said
        elif fd == acceptor.adopting:
            pending.extend((client.fd, EPOLLIN) for client in acceptor.adopt_if_room())
        elif fd in acceptor.listeners and (client := acceptor.accept_in_turn(fd)):
            if pending:  # calls may last: new connections get their turn among those that are open
                pending.insert(1, (fd, EPOLLIN))
            pending.appendleft((client.fd, EPOLLIN))
        return True
