"""The lead: which of several threads polls, and how it changes hands. Moves are roster.py's, the policy pace.py's.

The leader owns all that the loop has. A call that lasts loses the lead to a follower (watcher.py); its thread gives
its client back and does what was kept for it, or rests until it is woken. Each thread is woken for itself, by a lock of
its own.

Some work belongs to one thread: a response that was suspended goes on where the application was called, because what
the application holds may belong to that thread (`resume`).
"""

from _thread import allocate_lock
from collections.abc import Callable
from functools import partial
from time import monotonic

from sdserve.http.request import Request
from sdserve.log import Logger
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.pace import Pace
from sdserve.workers.wsgi.roster import Next, Roster, Seat
from sdserve.workers.wsgi.running import Job, Running, Seats
from sdserve.workers.wsgi.watcher import Callbacks, Watcher, path_of


class LeaderFollowers:
    """The lead among `threads` threads, or the one thread's own. A call without progress for `timeout` seconds is
    stuck; 0: never."""

    def __init__(self, threads: int, timeout: float, tell: Callbacks, log: Logger) -> None:
        self._threads = threads
        self._tell = tell
        self._answer = tell.answer
        self._log = log
        self._turns: Callable[[], None] = lambda: None
        self._mutex = allocate_lock()  # held for moves of the roster
        self._roster: Roster[WSGIClient, Job] = Roster()
        self._table = self._roster.table
        self._idle = self._roster.idle
        self._pace = Pace()
        self._seats = Seats()
        self.held = self._seats.held
        self.running = Running()
        shared = (self._mutex, self._roster, self.running, self._seats, self._pace)
        self._watcher = Watcher(threads, timeout, tell, log, *shared, self._live)

    @property
    def stopped(self) -> bool:
        return self._roster.stopped

    def share(self, turns: Callable[[], None]) -> None:
        """Has `turns` run by one thread at a time until `stop`. `turns` returns when its thread has lost the lead."""
        self._turns = turns
        if self._threads == 1:
            turns()
            return
        if self._watcher.hire(monotonic()):
            self._watcher.watch_on()
        else:
            self._live()  # without anybody to follow, and without a watcher

    def stop(self) -> None:
        """Said by the leader: nobody leads any more."""
        with self._mutex:
            self._seats.ring(self._roster.stop())
        self._watcher.alarm()

    def is_alone(self) -> bool:
        """Whether nobody polls, nor is about to, while this thread is in a call."""
        leader = self._roster.leader
        return leader is None or (not self._idle and leader is self._seats.own())

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
        if self._watcher.parked:
            self._watcher.rouse()
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
            here, woken = self._roster.assign(Job(client, step, now), self._seats.by_thread.get(owner))
            self._seats.ring(woken)
            if not here:
                self._watcher.expect(now)
        if not here:
            if not woken and self._watcher.parked:
                self._watcher.rouse()  # it must be seen that this waits
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
            if self._roster.leader is not self._seats.own():
                return False
            self._table.clear()
            return True

    def _do(self, client: WSGIClient, step: Callable[[], None], now: float) -> bool:
        """A step in this thread, with the lead as long as it lasts. False when the lead was lost."""
        self._table[client] = now
        if self._watcher.parked:
            self._watcher.rouse()
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
            self._seats.ring(woken)
        return bool(woken)

    def _call_as_follower(self, client: WSGIClient, request: Request, now: float) -> None:
        """Gives up the lead before a call that is expected to last."""
        with self._mutex:
            seat = self._roster.leader
            assert seat is not None
            self._runs(client, now, seat)
            self._seats.ring(self._roster.pass_on())
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
            seat = self.running.end(client)
            if seat is not None:
                self._roster.found(seat)
        self._tell.give_back(client, False)

    def _runs(self, client: WSGIClient, since: float, seat: Seat[Job]) -> None:
        """A call begins without the lead."""
        self.running.begin(client, since, seat)
        self._watcher.began(since)

    def _live(self) -> None:
        """Leads, does what was kept for this thread, rests."""
        seat: Seat[Job] = Seat()
        roster, mutex = self._roster, self._mutex
        try:
            with mutex:
                bell = self._seats.enter(seat)
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
                self._seats.leave(seat)
                self._seats.ring(roster.leave(seat))
                self._watcher.lost_a_thread()
            self._watcher.alarm()
