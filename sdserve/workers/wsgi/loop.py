"""The WSGI worker's loop: one epoll, and the application called by whichever thread leads.

A turn: poll, handle each event, see what is due, see whether it is time to leave. What happens to connections is in
clients.py, how they come in is in http/acceptor.py, how threads share the work is in leader_followers.py, how all of it
ends is in http/retirement.py.

Events come before deadlines: what is due is judged by the time of the last poll, so that nothing is due whose data came
while a call kept the loop. Whatever goes wrong in a turn ends the connection it was for, nothing else (`_survives`);
what goes wrong with the loop itself is a matter of guard.py.
The process is marked busy whenever it does not poll: a leader that hangs outside of a call is noticed by the master.
"""

import errno
import os
import select
import time
from collections import deque
from collections.abc import Callable
from os import eventfd, eventfd_read, eventfd_write
from time import monotonic

from sdserve.process import forked
from sdserve.process.adoption import SPREAD
from sdserve.workers.base import Worker
from sdserve.workers.guard import Guard
from sdserve.workers.http.acceptor import Acceptor
from sdserve.workers.http.client import EPOLLIN, Phase
from sdserve.workers.http.deadlines import NEVER
from sdserve.workers.http.handoff import may_move
from sdserve.workers.http.retirement import Retirement
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store, Waits
from sdserve.workers.options import Options
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.clients import WSGIClients
from sdserve.workers.wsgi.exchange import Exchange
from sdserve.workers.wsgi.leader_followers import LeaderFollowers
from sdserve.workers.wsgi.watcher import Callbacks

EVENTS = 32  # of one poll
# Of clients in `ready`: a request to read, a call whose body does not come, a response whose client has gone, or one
# that has had its slice of time.
TURNS = (Phase.HEAD, Phase.READ, Phase.CLOSED, Phase.FLUSH)
BATCH = 4  # of them between two polls: who sends one request at a time does not wait for those who send many
TooLong = Callable[[WSGIClient, float, int], None]


class Loop:
    """Serves the worker's listeners until `worker` says otherwise. `exchange` answers one request of one client;
    `too_long(client, seconds, thread)` hears of calls that hang in one of several threads."""

    def __init__(self, worker: Worker, options: Options, exchange: Exchange, too_long: TooLong) -> None:
        self._worker = worker
        self._options = options
        self._exchange = exchange
        self._epoll = select.epoll()
        waits = Waits.within(options.times.send, options.timeout, alone=options.threads == 1)
        store = Store(Quota(options.spool), worker.log.warning, options.times.send, waits)
        self._clients = WSGIClients(worker, options, self._epoll, exchange, store, self._taken_over)
        self._acceptor = Acceptor(worker, options, self._epoll, self._clients)
        tell = Callbacks(
            *(exchange.answer, self._give_back, self._clients.broken, too_long, worker.request_begins),
            *(self._in_demand, self._end_poll),
        )
        self._lead = LeaderFollowers(options.threads, options.timeout, tell, worker.log)
        exchange.gateway.others_wait = self._lead.is_alone
        exchange.held = self._lead.held
        self._retirement = Retirement(worker, self._clients, self._acceptor, exchange.heads)
        self._pending: deque[tuple[int, int]] = deque()  # events polled and not yet handled
        self._returned: deque[WSGIClient] = deque()  # clients whose call ended without the lead
        self._polled = 0.0  # when the last poll returned
        self._marked = False  # the process is marked busy, from an earlier turn
        self._told_of_takeover = False
        self._interrupts = False  # signals interrupt calls, see `_taken_over`
        self._guard = Guard()
        self._fatal: BaseException | None = None
        self._wake = -1
        self._demand = select.poll()
        self._demand.register(self._epoll, select.POLLIN)
        self._control: set[int] = set()
        for fd in worker.control_fds():
            self._add_control(fd)
        if options.threads > 1:
            self._clients.use(self._lead)
            self._wake = eventfd(0)
            self._add_control(self._wake)
        worker.rewired = self._add_control

    def run(self) -> None:
        """Serves; returns when the worker has retired, or must leave."""
        self._acceptor.start()
        self._lead.share(self._turns)
        if not self._worker.quick:
            self.name_what_is_cut()
        self._close_all()
        if self._fatal is not None:
            raise self._fatal

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

    def _close_all(self) -> None:
        for client in self._clients:
            if client.phase is not Phase.CALL:
                client.close()
        self._epoll.close()
        self._exchange.interrupted()
        if self._exchange.access is not None:
            self._exchange.access.flush()

    def let_go(self) -> None:
        """In a process that the application has forked: closes what polls, and all that is polled."""
        self._epoll.close()
        self._clients.let_go()
        if self._wake >= 0:
            wake, self._wake = self._wake, -1
            os.close(wake)

    def calls(self) -> list[str]:
        """The requests that the application has now, for the log."""
        now = monotonic()
        calls = [client for client in self._clients if client.runs and client.request is not None]
        return [client.describe(now - client.running_since) for client in calls]

    def own_thread(self) -> int:
        """The thread of a running call that has one of its own, 0 if there is none."""
        return next((own for each in self._clients if each.phase is Phase.CALL and (own := each.own_thread)), 0)

    def name_what_is_cut(self) -> None:
        """Tells the log of requests that have not ended when the worker must, or when only such as hang are left."""
        over = monotonic() >= (self._worker.drain_by or 0.0)
        limit = "orphan_timeout" if self._worker.orphaned else "graceful_timeout"
        why = f"{limit} is over" if over else "it hangs, and its worker has finished everything else"
        for call in self.calls():
            self._worker.log.warning("%s, and is cut: %s", call, why)

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

    def _survives(self, client: WSGIClient | None, error: BaseException) -> bool:
        """After an exception in a turn, `client` being what it was for. False when this thread is not to go on.

        Where no connection is to blame the same may happen at once again: guard.py says what becomes of the loop.
        """
        worker = self._worker
        if forked.child:
            forked.leave(worker.log.error, error)
        if self._options.threads > 1 and not self._lead.leads():
            worker.log.exception("Error in a thread of worker %s that had lost the lead", worker.pid)
            return False
        if client is not None:
            self._clients.fail(client)
            return True
        verdict = self._guard.failed(monotonic(), self._polled)
        unheard = verdict.replace and not worker.ask_for_replacement("fails again and again")
        if verdict.over or unheard:
            worker.log.critical("Worker %s cannot go on: %r", worker.pid, error)
            self._fatal = error
            self._lead.stop()
            return False
        worker.log.exception("Error in the loop of worker %s, which goes on", worker.pid)
        time.sleep(verdict.pause)
        return True

    def _count(self) -> None:
        """Counts what was answered: before each rest, and in time where there is none, for max_requests."""
        self._worker.count_requests(*self._clients.take_counts())
        self._worker.cell.used(self._clients.marked_at)

    def _rest(self) -> None:
        """Before the leader waits: what the turn did is counted, and the busy mark is taken away.

        While other threads are in calls the process is not idle, but it is well: the mark is renewed, and the master's
        time-out is left to a process in which nothing moves.
        """
        if self._clients.count:
            self._count()
        self._marked |= self._clients.rest()
        if self._lead.running:
            self._marked = True
            self._worker.not_polling(monotonic())
        elif self._marked:
            self._marked = False
            self._worker.request_ends()
        if self._interrupts:
            self._interrupts = False
            self._worker.interrupts(False)
        if not self._acceptor.open:
            self._reopen()
        self._acceptor.tell_others()

    def _reopen(self) -> None:
        if not self._retirement.begun:
            self._acceptor.reopen()

    def _is_over(self, now: float) -> bool:
        """Goes on retiring; True when it is time to leave."""
        return self._retirement.is_over(now, sum(client.phase is Phase.CALL for client in self._lead.stuck))

    def _in_demand(self) -> bool:
        """Whether something waits to be polled."""
        try:
            return bool(self._demand.poll(0))
        except OSError:  # no memory: perhaps
            return True

    def _add_control(self, fd: int) -> None:
        """One more descriptor that tells the worker something."""
        self._control.add(fd)
        self._epoll.register(fd, EPOLLIN)

    def _end_poll(self) -> None:
        """Has the leader turn: something else than a descriptor has changed."""
        try:
            eventfd_write(self._wake, 1)
        except OSError as error:
            old, self._wake = self._wake, eventfd(1)
            self._control.discard(old)
            if error.errno != errno.EBADF:  # else the application has closed it
                os.close(old)
            self._add_control(self._wake)

    def _other(self, fd: int) -> bool:
        """An event of something that is no client. False when the lead was lost."""
        acceptor, worker, pending = self._acceptor, self._worker, self._pending
        if fd == self._wake:
            eventfd_read(fd)
            return self._lead.take_orphan()
        if fd in self._control:
            worker.handle_control(fd)
        elif not (acceptor.open and worker.alive):  # who was told to leave takes what is queued in retirement.py
            acceptor.set_open(False)  # it was not possible when it was said
        elif fd == acceptor.adopting:
            pending.extend((client.fd, EPOLLIN) for client in acceptor.adopt_if_room())
        elif fd in acceptor.listeners and (client := acceptor.accept_in_turn(fd)):
            if pending:  # calls may last: new connections get their turn among those that are open
                pending.insert(1, (fd, EPOLLIN))
            pending.appendleft((client.fd, EPOLLIN))
        return True

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
