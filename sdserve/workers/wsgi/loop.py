"""The WSGI worker's loop: one epoll, and the application called by whichever thread leads.

A turn: poll, handle each event, see what is due, see whether it is time to leave. What happens to connections is in
clients.py, how they come in is in http/acceptor.py, how threads share the work is in leader_followers.py, how all of it
ends is in http/retirement.py, and what can go wrong is met in http/loop.py.

The process is marked busy whenever it does not poll: a leader that hangs outside of a call is noticed by the master.
"""

import errno
import os
import select
from collections import deque
from collections.abc import Callable
from functools import partial
from os import eventfd, eventfd_read, eventfd_write
from time import monotonic

from sdserve.process.adoption import SPREAD
from sdserve.process.counters import BUSY, POLLS, THREADS
from sdserve.workers.base import Worker
from sdserve.workers.http.client import Phase
from sdserve.workers.http.deadlines import NEVER
from sdserve.workers.http.handoff import may_move
from sdserve.workers.http.loop import BATCH, EVENTS, Loop
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store, Waits
from sdserve.workers.options import Options
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.clients import WSGIClients
from sdserve.workers.wsgi.exchange import WSGIExchange
from sdserve.workers.wsgi.leader_followers import LeaderFollowers
from sdserve.workers.wsgi.watcher import Callbacks

# Of clients in `ready`: a request to read, a call whose body does not come, a response whose client has gone, or one
# that has had its slice of time.
TURNS = (Phase.HEAD, Phase.READ, Phase.CLOSED, Phase.FLUSH)
TooLong = Callable[[WSGIClient, float, int], None]


class WSGILoop(Loop[WSGIClient]):
    """`too_long(client, seconds, thread)` hears of calls that hang in one of several threads."""

    _clients: WSGIClients
    _exchange: WSGIExchange

    def __init__(self, worker: Worker, options: Options, exchange: WSGIExchange, too_long: TooLong) -> None:
        waits = Waits.within(options.times.send, options.timeout, alone=options.threads == 1)
        store = Store(Quota(options.spool), worker.log.warning, options.times.send, waits)
        epoll = select.epoll()
        clients = WSGIClients(worker, options, epoll, exchange, store, self._taken_over)
        super().__init__(worker, options, epoll, clients, exchange)
        tell = Callbacks(
            *(exchange.answer, self._give_back, clients.broken, too_long, worker.request_begins),
            *(self._in_demand, self._end_poll),
        )
        self._lead = LeaderFollowers(options.threads, options.timeout, tell, worker.log)
        exchange.gateway.others_wait = self._lead.is_alone
        exchange.held = self._lead.held
        self._lead.running.show = partial(worker.counters.set, BUSY)
        worker.counters.set(THREADS, options.threads)
        self._returned: deque[WSGIClient] = deque()  # clients whose call ended without the lead
        self._told_of_takeover = False
        self._interrupts = False  # signals interrupt calls, see `_taken_over`
        self._wake = -1
        self._demand = select.poll()
        self._demand.register(epoll, select.POLLIN)
        if options.threads > 1:
            clients.use(self._lead)
            self._wake = eventfd(0)
            self._add_control(self._wake)

    def _serve(self) -> None:
        self._lead.share(self._turns)

    def _stop(self) -> None:
        self._lead.stop()

    def _leads(self) -> bool:
        return self._options.threads == 1 or self._lead.leads()

    def run_without(self) -> None:
        """Ends the service of a worker whose one thread is stuck in a request, in another thread.

        That request's client sees its connection reset. All others are given away, or finished here.
        """
        for client in self._clients:
            if client.phase is Phase.CALL:
                try:  # a call in a thread of its own was not interrupted with the one that waits for it
                    if client.reply is not None and client.reply.fiber is not None:
                        client.reply.fiber.abandon()
                except (ImportError, OSError, MemoryError) as error:
                    self._worker.log.warning("A request that is stuck goes on beside the others: %s", error)
                client.reset_at_close()
                self._clients.close(client)
        if not self._is_over(monotonic()):
            self._turns()
        self._close_all()

    def close_in_child(self) -> None:
        super().close_in_child()
        if self._wake >= 0:
            wake, self._wake = self._wake, -1
            os.close(wake)

    def own_thread(self) -> int:
        """The thread of a running call that has one of its own, 0 if there is none."""
        return next((own for each in self._clients if each.phase is Phase.CALL and (own := each.own_thread)), 0)

    def _turns(self) -> None:
        """Turns until the lead is lost, or until all is over."""
        worker, clients = self._worker, self._clients
        poll, pending, ready, returned = self._epoll.poll, self._pending, clients.ready, self._returned
        find, event, access = clients.open.get, clients.event, self._exchange.access
        client: WSGIClient | None = None
        batch = 0  # whoever leads anew polls first: a leader may lose the lead to each client in `ready`
        while True:
            try:
                while True:
                    while returned:
                        client = returned.popleft()
                        clients.answered(client, monotonic())
                    while pending:
                        fd, mask = pending.popleft()
                        client = find(fd)
                        if client is None:
                            if not self._other(fd):
                                return
                        elif not event(client, mask):
                            return
                    client = None
                    if self._polled >= clients.sweep_at:
                        clients.sweep(self._polled)
                        self._reopen()
                    for _ in range(min(len(ready), batch)):
                        client = ready.popleft()
                        if client.phase in TURNS and not clients.advance(client, monotonic()):
                            return
                        if client.phase is Phase.FLUSH:  # it may have taken its time: look for others
                            break
                    client, batch = None, BATCH
                    if not worker.alive and self._is_over(monotonic()):
                        self._lead.stop()
                        return
                    if access is not None and access.pending:
                        access.flush()
                    if ready or returned:
                        if clients.count >= EVENTS:
                            self._count()
                        pending.extend(poll(0, EVENTS))
                    else:
                        self._rest()
                        if clients.sweep_at == NEVER and worker.drain_by is None:
                            pending.extend(poll(-1, EVENTS))
                        else:
                            due = min(clients.sweep_at, worker.drain_by or NEVER)
                            pending.extend(poll(max(0.0, due - monotonic()), EVENTS))
                    self._polled = now = monotonic()
                    clients.turn(now)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the others are served
                if not self._survives(client, error):
                    return

    def _rest(self) -> None:
        """Before the leader waits: what the turn did is counted, and the busy mark is taken away.

        While other threads are in calls the process is not idle, but it is well: the mark is renewed, and the master's
        time-out is left to a process in which nothing moves.
        """
        clients, acceptor = self._clients, self._acceptor
        if clients.count:
            self._count()
        if self._lead.running.calls:
            clients.marked = True
            self._worker.not_polling(monotonic())
        elif clients.marked:
            clients.rest()
        if self._interrupts:
            self._interrupts = False
            self._worker.interrupts(False)
            self._worker.counters.set(POLLS, 1)
        if not acceptor.open:
            self._reopen()
        if len(clients.open) != acceptor.shown:
            acceptor.tell_others()

    def _is_over(self, now: float) -> bool:
        """Goes on retiring; True when it is time to leave."""
        return self._retirement.is_over(now, sum(client.phase is Phase.CALL for client in self._lead.running.stuck))

    def _in_demand(self) -> bool:
        """Whether something waits to be polled."""
        try:
            return bool(self._demand.poll(0))
        except OSError:  # no memory: perhaps
            return True

    def _end_poll(self) -> None:
        """Has the leader turn: something else than a descriptor has changed."""
        wake = self._wake
        try:
            eventfd_write(wake, 1)
        except OSError as error:
            another = eventfd(1)
            try:
                self._control.remove(wake)
            except KeyError:  # another thread has replaced it, by one that has the leader turn
                os.close(another)
                return
            self._wake = another
            if error.errno != errno.EBADF:  # else the application has closed it
                os.close(wake)
            self._add_control(another)

    def _other(self, fd: int) -> bool:
        """An event of something that is no client. False when the lead was lost."""
        if fd == self._wake:
            eventfd_read(fd)
            return self._lead.take_orphan()
        return super()._other(fd)

    def _give_back(self, client: WSGIClient, leads: bool) -> None:
        """Hands a served client to whoever leads; `leads`: that is this thread, which is in a turn."""
        self._returned.append(client)
        if not leads and not self._lead.stopped:
            self._end_poll()

    def _taken_over(self, client: WSGIClient) -> None:
        """The application has taken a connection over, in a call that may last and is no hang.

        With one thread nothing else is served meanwhile: what can go to other workers goes.
        """
        threads = self._options.threads
        if threads == 1:
            self._worker.request_ends()
            self._worker.counters.set(POLLS, 0)
            self._worker.interrupts(True)  # the call may wait for long, and a stop must be heard
            self._interrupts = True
            if self._options.workers > 1:
                self._acceptor.give_away([each for each in self._clients if may_move(each)], monotonic(), SPREAD)
        taken = sum(each.response is not None and each.response.taken is not None for each in self._clients)
        if taken >= threads and not self._told_of_takeover:
            self._told_of_takeover = True
            what = f"{client.request.method} {client.request.uri}" if client.request else "a request"
            self._worker.log.warning(
                "The application took the connection of %s over: worker %s, with %s, serves nothing else "
                "until one is given back; see threads",
                *(what, self._worker.pid, "one thread" if threads == 1 else f"all of its {threads} threads taken so"),
            )
