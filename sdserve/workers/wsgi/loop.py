"""The WSGI worker's loop: one epoll, and the application called by whichever thread leads.

A turn: poll, handle each event, see what is due, see whether it is time to leave. What happens to connections is in
clients.py, how they come in is in acceptor.py, how threads share the work is in lead.py, how all of it
ends is in retirement.py.

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
from os import eventfd, eventfd_read, eventfd_write
from time import monotonic
from typing import TYPE_CHECKING

from sdserve.process.accept_balance import AcceptBalance
from sdserve.process.adoption import SPREAD
from sdserve.workers.guard import Guard
from sdserve.workers.http.acceptor import Acceptor
from sdserve.workers.http.client import EPOLLIN, NEVER, Client, Phase, describe
from sdserve.workers.http.clients import SWEEP
from sdserve.workers.http.handoff import may_move
from sdserve.workers.http.retirement import Retirement
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store, Waits
from sdserve.workers.options import Options
from sdserve.workers.wsgi.clients import WSGIClients
from sdserve.workers.wsgi.leader_followers import LeaderFollowers

if TYPE_CHECKING:
    from sdserve.process.listeners import Listener
    from sdserve.workers.wsgi.exchange import Exchange
    from sdserve.workers.wsgi.worker import WSGIWorker

EVENTS = 32  # of one poll
# Of clients in `ready`: a request to read, a call whose body does not come, a response whose client has gone, or one
# that has had its slice of time.
TURNS = (Phase.HEAD, Phase.READ, Phase.CLOSED, Phase.FLUSH)
BATCH = 16  # of them between two polls: who sends one request at a time does not wait for those who send many
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
TELL_EVERY = 10.0  # seconds between two lines about idle connections that made room
CROWDED = 5.0  # seconds that connections wait in the queue for somebody with room for them
CUT = 0.25  # seconds in which the application ends responses that are cut short: the master kills after twice that
STEP_ASIDE = 0.002  # seconds that a worker with more than its share leaves new connections to others


class Loop:
    """Serves the worker's listeners until `worker` says otherwise. `exchange` answers one request of one client."""

    def __init__(self, worker: "WSGIWorker", options: Options, exchange: "Exchange") -> None:
        self._worker = worker
        self._options = options
        self._interrupted = exchange.interrupted
        self._access = exchange.access
        self._epoll = select.epoll()
        disk = Quota(options.spool)
        waits = Waits.within(options.times.send, options.timeout, alone=options.threads == 1)
        store = Store(disk, worker.log.warning, options.times.send, waits)
        self._acceptor = Acceptor(worker, options, self._epoll, exchange.base, exchange.gateway.names, store)
        self._acceptor.on_take = self._taken_over
        self._clients = WSGIClients(
            *(self._epoll, options.times, self._acceptor, exchange, worker.log, worker.not_polling, disk),
            buffering=options.request_buffering,
        )
        self._lead = LeaderFollowers(
            *(options.threads, options.timeout),
            answer=exchange.answer,
            give_back=self._give_back,
            broken=self._clients.broken,
            too_long=worker.request_stuck,
            well=worker.request_begins,
            in_demand=self._in_demand,
            wake=self._end_poll,
            log=worker.log,
        )
        exchange.gateway.others_wait = self._lead.is_alone
        self._pending: deque[tuple[int, int]] = deque()  # events polled and not yet handled
        self._returned: deque[Client] = deque()  # clients whose call ended without the lead
        self._polled = 0.0  # when the last poll returned
        self._marked = False  # the process is marked busy, from an earlier turn
        self._retirement = Retirement(
            worker, self._clients, self._acceptor, exchange.gateway, self._accept, self._take_adopted
        )
        self._cut_by, self._owed = NEVER, list[Client]()  # at the end: responses that the application has to end
        self._told_of_takeover = False
        self._interrupts = False  # signals interrupt calls, see `_taken_over`
        self._control = set(worker.control_fds())
        self._guard = Guard()
        self._fatal: BaseException | None = None
        self._closed, self._told_at = 0, 0.0  # connections that made room, and when the log heard of it
        self._adopt_by = NEVER  # when what waits in the queue is taken without room for all of it
        self._crowded = False  # full, partly of connections that may be closed for others soon
        self._full_until = 0.0  # out of descriptors, or stepped aside: not before this time again
        self._balance = AcceptBalance(worker.cell, options.workers)
        self._wake = -1
        self._demand = select.poll()
        self._demand.register(self._epoll, select.POLLIN)
        if options.threads > 1:
            self._clients.use(self._lead)
            self._wake = eventfd(0)
            self._control.add(self._wake)
        for fd in self._control:
            self._epoll.register(fd, EPOLLIN)
        worker.rewired = self._add_control

    def run(self) -> None:
        """Serves; returns when the worker has retired, or must leave."""
        self._acceptor.set_open(True)
        self._join_balance()
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
                self._abandon(client)
                client.reset_at_close()
                self._clients.close(client)
        if not self._retirement_ends(monotonic()):
            self._turns()
        self._close_all()

    def _abandon(self, client: Client) -> None:
        """A call in a thread of its own was not interrupted with the one that waits for it."""
        fiber = client.reply.fiber if client.reply is not None else None
        try:
            if fiber is not None:
                fiber.abandon()
        except (ImportError, OSError, MemoryError) as error:
            self._worker.log.warning("A request that is stuck goes on beside the others: %s", error)

    def _close_all(self) -> None:
        for client in self._clients:
            if client.phase is not Phase.CALL:
                client.close()
        self._epoll.close()
        self._interrupted()
        if self._access is not None:
            self._access.flush()

    def calls(self) -> list[str]:
        """The requests that the application has now, for the log."""
        now = monotonic()
        calls = [client for client in self._clients if client.runs and client.request is not None]
        return [describe(client, now - client.running_since) for client in calls]

    def own_thread(self) -> int:
        """The thread of a running call that has one of its own, 0 if there is none."""
        return next((own for each in self._clients if each.phase is Phase.CALL and (own := each.own_thread)), 0)

    def name_what_is_cut(self) -> None:
        """Tells the log of requests that have not ended when the worker must, or when only such as hang are left."""
        over = monotonic() >= (self._worker.drain_by or 0.0)
        why = "graceful_timeout is over" if over else "it hangs, and its worker has finished everything else"
        for call in self.calls():
            self._worker.log.warning("%s, and is cut: %s", call, why)

    def _turns(self) -> None:
        """Turns until the lead is lost, or until all is over."""
        worker, clients = self._worker, self._clients
        poll, pending, ready, returned = self._epoll.poll, self._pending, clients.ready, self._returned
        find, event, access = clients.open.get, clients.event, self._access
        client: Client | None = None
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
                        self._make_room()
                    for _ in range(min(len(ready), batch)):
                        client = ready.popleft()
                        if client.phase in TURNS and not clients.advance(client, monotonic()):
                            return
                        if client.phase is Phase.FLUSH:  # it may have taken its time: look for others
                            break
                    client, batch = None, BATCH
                    if not worker.alive and self._retirement_ends(monotonic()):
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

    def _survives(self, client: Client | None, error: BaseException) -> bool:
        """After an exception in a turn, `client` being what it was for. False when this thread is not to go on.

        Where no connection is to blame the same may happen at once again: guard.py says what becomes of the loop.
        """
        worker = self._worker
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
            self._make_room()
        if len(self._clients) != self._balance.held:
            self._balance.hold(len(self._clients))

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
        acceptor, worker = self._acceptor, self._worker
        if fd == self._wake:
            eventfd_read(fd)
            return self._lead.take_orphan()
        if fd in self._control:
            worker.handle_control(fd)
        elif (
            acceptor.open and worker.alive
        ):  # once told to leave, what has been queued is the business of `_accept_rest`
            if fd == acceptor.adopting:
                self._adopt()
            elif fd in acceptor.listeners:
                if self._balance.steps_aside(monotonic()):
                    self._pause_accepting(STEP_ASIDE)
                elif client := self._accept(acceptor.listeners[fd]):
                    if self._balance.took(len(self._clients)):
                        acceptor.to_the_end_of_the_line(fd)
                    if self._pending:  # calls may last: new connections get their turn among those that are open
                        self._pending.insert(1, (fd, EPOLLIN))
                    self._pending.appendleft((client.fd, EPOLLIN))
        else:
            acceptor.set_open(False)  # it was not possible when it was said
        return True

    def _pause_accepting(self, seconds: float) -> None:
        """Leaves the line; `_make_room` brings the worker back."""
        self._acceptor.set_open(False)
        self._full_until = monotonic() + seconds
        self._clients.sweep_at = min(self._clients.sweep_at, self._full_until)

    def _give_back(self, client: Client, leads: bool) -> None:
        """Hands a served client to whoever leads; `leads`: that is this thread, which is in a turn."""
        self._returned.append(client)
        if not leads and not self._lead.stopped:
            self._end_poll()

    # --- connections --------------------------------------------------------------------------------------------------

    def _accept(self, listener: "Listener") -> Client | None:
        """One connection from the queue; room is made for it where none is left."""
        clients, worker = self._clients, self._worker
        if len(clients) >= self._options.connections and not self._has_made_room():
            self._close_door()
            if clients.has_idle():  # there may be room in a moment
                self._crowded = True
                self._pause_accepting(SWEEP)
            return None
        while True:
            try:
                client = self._acceptor.accept(listener)
            except OSError as error:  # the connection stays queued, for this worker, for others, or for later
                if error.errno in FULL and self._has_made_room():
                    continue
                worker.log.error(
                    "cannot accept on %s: %s; worker %s has %d connections", listener, error, worker.pid, len(clients)
                )
                self._pause_accepting(SWEEP)
                return None
            if client is not None:
                clients.add(client, monotonic(), self._options.times.head)
            return client

    def _adopt(self) -> None:
        if len(self._clients) >= self._options.connections:  # idle ones are not closed for what is idle as well
            self._close_door()
            return
        for client in self._take_adopted():
            self._pending.append((client.fd, EPOLLIN))

    def _close_door(self) -> None:
        """Full: connections stay queued, for other workers or for later."""
        self._acceptor.set_open(False)
        self._balance.leave()

    def _has_made_room(self) -> bool:
        """Closes connections of which nobody waits for an answer; False when there is none."""
        now = monotonic()
        closed = self._clients.close_idle(now)
        self._closed += closed
        if closed and now - self._told_at > TELL_EVERY:
            self._worker.log.warning(
                "Worker %s is full (%d connections): %d idle ones were closed for new ones; see LimitNOFILE=",
                *(self._worker.pid, len(self._clients) + closed, self._closed),
            )
            self._closed, self._told_at = 0, now
        return closed > 0

    def _take_adopted(self) -> list[Client]:
        """The connections of one message from the queue. Without room for all they wait there, but not for ever."""
        now = monotonic()
        try:
            taken = self._acceptor.adopt(all_or_none=now < self._adopt_by)
        except OSError as error:
            if error.errno not in FULL:
                raise
            if self._adopt_by == NEVER:
                self._adopt_by = now + CROWDED
                self._worker.log.error(
                    "cannot take connections over: %s; worker %s has %d. They wait for %g s; see LimitNOFILE=",
                    *(error.strerror, self._worker.pid, len(self._clients), CROWDED),
                )
            self._pause_accepting(SWEEP)
            return []
        self._adopt_by = NEVER
        for client, found in taken:
            self._clients.adopt(client, found, now)
        return [client for client, _ in taken]

    def _make_room(self) -> None:
        """A worker that was full and is not any more takes connections again."""
        room = (self._crowded or len(self._clients) < self._options.connections) and not self._retirement.begun
        if room and monotonic() >= self._full_until:
            self._crowded = False
            self._acceptor.set_open(True)
            self._join_balance()
        elif room:  # a sweep knows nothing of this
            self._clients.sweep_at = min(self._clients.sweep_at, self._full_until)

    def _join_balance(self) -> None:
        """Where workers share a queue of connections; with reuse_port each has its own."""
        if not self._options.reuse_port:
            self._balance.join()

    def _taken_over(self, client: Client) -> None:
        """The application has taken a connection over, in a call that may last and is no hang.

        With one thread nothing else is served meanwhile: what can go to other workers goes.
        """
        if self._options.threads > 1:
            return
        self._worker.request_ends()
        self._worker.interrupts(True)  # the call may wait for long, and a stop must be heard
        self._interrupts = True
        if self._options.workers > 1 and self._acceptor.adopting >= 0:
            going = [each for each in self._clients if may_move(each)]
            for gone in self._acceptor.give_away(going, monotonic(), SPREAD)[0]:
                self._clients.close(gone)
        if not self._told_of_takeover:
            self._told_of_takeover = True
            self._worker.log.warning(
                "The application took the connection of %s over: worker %s, with one thread, serves nothing else "
                "until it is given back; see threads",
                *(f"{client.request.method} {client.request.uri}" if client.request else "a request", self._worker.pid),
            )

    def _retirement_ends(self, now: float) -> bool:
        """Goes on retiring; True when it is time to leave."""
        worker, clients, retirement = self._worker, self._clients, self._retirement
        if worker.quick or self._cut_by < NEVER:
            return self._cuts(now)
        if not retirement.begun:
            self._balance.leave()
            retirement.begin(now, self._options.reuse_port)
        retirement.go_on(now)
        if worker.drain_by is not None and now >= worker.drain_by:
            return self._cuts(now)
        left = len(clients) - sum(1 for client in self._lead.stuck if client.phase is Phase.CALL)
        return left <= 0 and not clients.ready

    def _cuts(self, now: float) -> bool:
        """Time is over: ends whatever waits for its client. True when the application has heard of it.

        At a quick stop calls that run have as long to end: what they leave behind may have to be ended as well.
        """
        if self._cut_by == NEVER:
            self._cut_by = now + CUT
            self._acceptor.set_open(False)
        self._owed = [client for client in (*self._owed, *self._clients.cut()) if client.reply is not None]
        self._clients.sweep_at = min(self._clients.sweep_at, self._cut_by)
        runs = self._worker.quick and len(self._clients) > len(self._lead.stuck)
        return now >= self._cut_by or not (self._owed or runs)
