"""The lead: which of several threads polls, and how it changes hands. Moves are roster.py's, the policy pace.py's.

The leader owns all that the loop has. A call that lasts loses the lead to a follower (watcher.py); its thread gives
its client back and does what was kept for it, or rests until it is woken. Each thread is woken for itself, by a lock of
its own.

Some work belongs to one thread: a response that was suspended goes on where the application was called, because what
the application holds may belong to that thread (`resume`).
"""

import threading
from _thread import allocate_lock
from collections.abc import Callable
from functools import partial
from time import monotonic

from sdserve.http.request import Request
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.roster import Next, Seat
from sdserve.workers.wsgi.watcher import JOB_WAITS, RETRY, Job, Watcher, path_of


class LeaderFollowers(Watcher):
    """The lead among several threads, or the one thread's own."""

    @property
    def stopped(self) -> bool:
        return self._roster.stopped

    def share(self, turns: Callable[[], None]) -> None:
        """Has `turns` run by one thread at a time until `stop`. `turns` returns when its thread has lost the lead."""
        self._turns = turns
        if self._threads == 1:
            turns()
            return
        if self.hire(monotonic()):
            while not self._roster.stopped:
                try:
                    self.watch()
                except Exception:  # noqa: BLE001 - the threads serve on, and somebody must watch them
                    self._log.exception("Error in the thread that watches the others; it goes on")
                    self._tick.acquire(timeout=RETRY)
        else:
            self.live()  # without anybody to follow, and without a watcher

    def stop(self) -> None:
        """Said by the leader: nobody leads any more."""
        with self._mutex:
            self._ring_bells(self._roster.stop())
        self._alarm.set()

    def is_alone(self) -> bool:
        """Whether nobody polls, nor is about to, while this thread is in a call."""
        leader = self._roster.leader
        return leader is None or (not self._idle and leader is self._seats.get(threading.get_ident()))

    # --- what the leader does -----------------------------------------------------------------------------------------

    def call(self, client: WSGIClient, request: Request, now: float) -> bool:
        """Answers a request in this thread, with the lead as long as it lasts. False when the lead was lost."""
        leader = self._roster.leader
        if leader is not None and leader.held and self._hand_over(client, request, now):
            return False
        pace, name = self._pace, ""
        if not pace.calm:
            name = path_of(request)
            if self._idle and pace.remembers(name):
                with self._mutex:
                    slow = pace.expect_slow(name)
                if slow:
                    self._call_as_follower(client, request, now)
                    return False
        table = self._table
        table[client] = now
        if self._parked:
            self.rouse()
        try:
            self._answer(client, request, now)
        except BaseException:  # noqa: BLE001 - one connection ends, nothing else
            self._tell.broken(client)
        if table.pop(client, None) is None:
            self._comes_back(client)
            return False
        if name and pace.remembers(name):
            with self._mutex:
                pace.was_quick(name)
        return True

    def resume(self, client: WSGIClient, owner: int, step: Callable[[], None]) -> bool:
        """Has `step` done by the thread `owner` (threading.get_ident()), and gives the client back to the leader then.

        At once where that is this thread, or where it is stuck or gone: then this is a call like any other. An idle
        thread is woken for it. One that is in a call does it when that returns; where that takes longer than the
        time-out, another thread does it. False when the lead was lost meanwhile; the client belongs to the step in
        any case, until it comes back.
        """
        now = monotonic()
        with self._mutex:
            here, woken = self._roster.assign(Job(client, step, now), self._seats.get(owner))
            self._ring_bells(woken)
            if not here:
                self._due = min(self._due, now + (self._timeout or JOB_WAITS))
        if not here:
            if not woken and self._parked:
                self.rouse()  # it must be seen that this waits
            return True
        return self._do(client, step, now)

    def take_orphan(self) -> bool:
        """Does one job whose thread is lost. False when the lead was lost."""
        with self._mutex:
            job = self._roster.orphans.popleft() if self._roster.orphans else None
        if job is None:
            return True
        self._tell.wake()  # there may be more
        return self.resume(job.client, 0, job.step)

    def leads(self) -> bool:
        """Whether this thread leads. Takes the token of a call that an exception has left behind off the table."""
        with self._mutex:
            if self._roster.leader is not self._seats.get(threading.get_ident()):
                return False
            self._table.clear()
            return True

    def _do(self, client: WSGIClient, step: Callable[[], None], now: float) -> bool:
        """A step in this thread, with the lead as long as it lasts. False when the lead was lost."""
        self._table[client] = now
        if self._parked:
            self.rouse()
        self._step(client, step)
        if self._table.pop(client, None) is None:
            self._comes_back(client)
            return False
        self._tell.give_back(client, True)
        return True

    def _hand_over(self, client: WSGIClient, request: Request, now: float) -> bool:
        """Gives a call and the lead to a thread that holds no response which waits; False if none is idle."""
        with self._mutex:
            woken = self._roster.hand_over(Job(client, partial(self._answer, client, request, now), now))
            self._ring_bells(woken)
        return bool(woken)

    def _call_as_follower(self, client: WSGIClient, request: Request, now: float) -> None:
        """Gives up the lead before a call that is expected to last."""
        with self._mutex:
            seat = self._roster.leader
            assert seat is not None
            self._runs(client, now, seat)
            self._ring_bells(self._roster.pass_on())
        self._step(client, partial(self._answer, client, request, now))
        self._comes_back(client)

    def _step(self, client: WSGIClient, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException:  # noqa: BLE001 - one connection ends, nothing else
            self._tell.broken(client)

    # --- what threads without the lead do -----------------------------------------------------------------------------

    def _comes_back(self, client: WSGIClient) -> None:
        """The end of a call or step without the lead."""
        with self._mutex:
            run = self.running.pop(client, None)
            self.shows(len(self.running))
            if client in self.stuck:
                self.stuck.discard(client)
                if run is not None:
                    self._roster.found(run.seat)
        self._tell.give_back(client, False)

    def live(self) -> None:
        """Leads, does what was kept for this thread, rests."""
        seat: Seat[Job] = Seat()
        bell = allocate_lock()
        bell.acquire()
        roster, mutex = self._roster, self._mutex
        try:
            with mutex:
                self._seats[threading.get_ident()] = seat
                self._bells[seat] = bell
                self.held[threading.get_ident()] = seat.held
                roster.join(seat)
            while True:
                with mutex:
                    task = roster.rest(seat)
                    leads = roster.leader is seat
                    if isinstance(task, Job) and not leads:
                        self._runs(task.client, monotonic(), seat)
                if task is Next.WAIT:
                    bell.acquire()
                elif task is Next.LEAD:
                    self._turns()
                elif isinstance(task, Job) and leads:
                    self._do(task.client, task.step, monotonic())
                elif isinstance(task, Job):
                    self._step(task.client, task.step)
                    self._comes_back(task.client)
                else:
                    return
        except BaseException:  # noqa: BLE001 - whatever ends a thread, the others go on
            self._log.exception("A thread has ended; another one takes its place")
        finally:
            with mutex:
                self._seats.pop(threading.get_ident(), None)
                self.held.pop(threading.get_ident(), None)
                self._bells.pop(seat, None)
                self._ring_bells(roster.leave(seat))
                self._alive -= 1
                self._retry_at = monotonic() + RETRY
                self._due = min(self._due, self._retry_at)
            self._alarm.set()
