"""The lead: which of several threads polls, and how it changes hands (the policy is in leaders.py).

The thread that holds the baton leads, and owns all that the loop has. Before it calls the application it leaves a token
on the table. Whoever takes the token away has the lead from then on: the leader itself when the call returns, or the
watcher when the call lasts; taking is one atomic step. A thread that comes back and finds the token gone has lost the
lead: it gives its stream back and waits for the baton like the others.

The watcher is the main thread. The application never runs in it, so it is always free for signals, for calls that last
too long, and for the way out.
"""

import threading
from collections.abc import Callable
from time import monotonic

from sdserve.http.request import Request
from sdserve.workers.leaders import PROMOTE_AFTER, SLOW, Pace
from sdserve.workers.stream import Stream

QUIET = 20  # looks of the watcher at an empty table before it sleeps

Answer = Callable[[Stream, Request, float], None]


class Lead:
    """The lead among `threads` threads.

    `answer` calls the application; `give_back` takes a stream whose call ended without the lead; `too_long(request,
    seconds, thread)` hears of calls longer than `timeout` seconds (0: never); `well(now)` is called when the watcher
    has looked and not all threads are stuck.
    """

    def __init__(
        self,
        threads: int,
        timeout: float,
        *,
        answer: Answer,
        give_back: Callable[[Stream], None],
        too_long: Callable[[Request | None, float, int], None],
        well: Callable[[float], None],
    ) -> None:
        self._threads = threads
        self._timeout = timeout
        self._answer = answer
        self._give_back = give_back
        self._too_long = too_long
        self._well = well
        self._baton = threading.Lock()
        self._switch = threading.Lock()  # held while the token of a call that lasts changes hands
        self._table: list[Stream] = []
        self._calls = 0
        self._waiting = 0  # followers
        self._reinforced = False
        self._leader = 0  # the thread that leads, and whose call is on the table
        self._pace = Pace()
        self._parked = True  # the watcher sleeps
        self._alarm = threading.Event()
        self._tick = threading.Lock()
        self._tick.acquire()
        self.running: dict[Stream, tuple[float, int]] = {}  # calls without the lead: since when, in which thread
        self.stuck: set[Stream] = set()  # those that exceeded the time-out
        self.stopped = False

    def share(self, turns: Callable[[], None]) -> None:
        """Has `turns` run by one thread at a time until `stop`. `turns` returns when its thread has lost the lead."""
        if self._threads == 1:
            self._baton.acquire()
            turns()
            return
        for number in range(self._threads):
            self._start(number, turns)
        self._watch(turns)

    def _start(self, number: int, turns: Callable[[], None]) -> None:
        threading.Thread(target=self._follow, args=(turns,), name=f"sdserve-{number}", daemon=True).start()

    def stop(self) -> None:
        """Said by the leader: nobody leads any more."""
        self.stopped = True
        self._baton.release()
        self._alarm.set()

    def _follow(self, turns: Callable[[], None]) -> None:
        while not self.stopped:
            self._waiting += 1
            self._baton.acquire()
            self._waiting -= 1
            if self.stopped:
                self._baton.release()
                return
            self._leader = threading.get_ident()
            turns()

    def call(self, stream: Stream, request: Request, now: float) -> bool:
        """Answers a request in this thread, with the lead as long as it lasts. False when the lead was lost."""
        pace, path = self._pace, request.path
        if not pace.calm and self._waiting and pace.expect_slow(path):
            self._call_as_follower(stream, request, now)
            return False
        self._calls += 1
        self._table.append(stream)
        if self._parked:
            self._ring()
        self._answer(stream, request, now)
        try:
            self._table.pop()
        except IndexError:
            with self._switch:
                self.running.pop(stream, None)
            self._comes_back(stream)
            return False
        if not pace.calm:
            pace.was_quick(path)
        return True

    def _call_as_follower(self, stream: Stream, request: Request, now: float) -> None:
        """Gives up the lead before a call that is expected to last."""
        self.running[stream] = (now, threading.get_ident())
        self._ring()
        self._baton.release()
        self._answer(stream, request, now)
        del self.running[stream]
        if monotonic() - now < SLOW:
            self._pace.was_quick(request.path)
        self._comes_back(stream)

    def _comes_back(self, stream: Stream) -> None:
        self.stuck.discard(stream)
        self._give_back(stream)

    # --- the watcher --------------------------------------------------------------------------------------------------

    def _ring(self) -> None:
        """Wakes the watcher."""
        if self._parked:
            self._parked = False
            self._alarm.set()

    def _watch(self, turns: Callable[[], None]) -> None:
        """Looks at the table every few milliseconds; sleeps while nothing is called, so an idle worker is not woken."""
        alarm, table = self._alarm, self._table
        while not self.stopped:
            self._parked = True
            if not table:
                alarm.wait(self._patience())
            alarm.clear()
            self._parked = False
            seen, quiet = -1, 0
            while quiet < QUIET and not self.stopped:
                self._tick.acquire(timeout=PROMOTE_AFTER)
                if not table:
                    quiet += 1
                    continue
                quiet = 0
                if self._calls == seen:
                    self._promote()
                seen = self._calls
            if self.running:
                self._look_for_stuck(monotonic())
                if len(self.stuck) == self._threads and not self._reinforced:
                    self._reinforced = True  # one more thread, for what else this worker holds
                    self._start(self._threads, turns)
                    self._threads += 1
                    self._well(monotonic())

    def _promote(self) -> None:
        """Takes the lead from a call that lasts, and gives it to a follower."""
        with self._switch:
            try:
                stream = self._table.pop()
            except IndexError:  # it returned just now
                return
            self.running[stream] = (monotonic() - PROMOTE_AFTER, self._leader)
        request = stream.request
        if request is not None:
            self._pace.was_slow(request.path)
        self._baton.release()

    def _patience(self) -> float | None:
        """Seconds until the next call may exceed the time-out, None when none can."""
        if not self._timeout:
            return None
        since = [began for stream, (began, _) in list(self.running.items()) if stream not in self.stuck]
        return max(0.0, min(since) + self._timeout - monotonic()) + 0.001 if since else None

    def _look_for_stuck(self, now: float) -> None:
        if not self._timeout:
            return
        for stream, (began, thread) in list(self.running.items()):
            if now - began >= self._timeout and stream not in self.stuck:
                self.stuck.add(stream)
                self._too_long(stream.request, now - began, thread)
        if len(self.stuck) < self._threads:
            self._well(now)
