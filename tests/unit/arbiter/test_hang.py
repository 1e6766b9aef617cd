"""Hung workers are noticed without a heartbeat, a wrong alarm is taken back, and idle ones that cannot hang sleep."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from sdserve.arbiter.hang import GRACE, HangWatch
from sdserve.arbiter.lifecycle import Phase, WorkerEvent
from sdserve.process.counters import POLLS, THREADS, CounterCell
from sdserve.process.proc import read
from sdserve.process.scoreboard import WATCHED
from sdserve.workers.words import POLL
from tests.unit.arbiter.turning import Family

TIMEOUT = 1


class Watched(Family):
    """One worker that serves, as the master sees it, and the watch over it."""

    def __init__(self, timeout: int = TIMEOUT, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(booted=True, timeout=timeout, clock=clock)
        self.hung: list[float] = []
        self.watch = HangWatch(self.loop, lambda handle, seconds: self.hung.append(seconds))

    def busy_for(self, seconds: float) -> None:
        """The worker has been busy for so long, and says so now."""
        if self.handle.cell.begin(time.monotonic() - seconds):
            self.watch.busy(self.handle)


@pytest.fixture
def watched() -> Iterator[Watched]:
    with closing(Watched()) as watched:
        yield watched


def test_hung(watched: Watched) -> None:
    watched.busy_for(TIMEOUT + GRACE + 0.5)
    assert len(watched.hung) == 1
    assert watched.hung[0] >= TIMEOUT + GRACE


def test_hung_later(watched: Watched) -> None:
    watched.busy_for(TIMEOUT)
    assert watched.hung == []
    watched.turn_until(lambda: watched.hung)
    assert TIMEOUT + GRACE <= watched.hung[0] < TIMEOUT + GRACE + 10


def test_done_in_time(watched: Watched) -> None:
    """At the deadline the worker is idle: the master looks away, and is told of the next request."""
    watched.busy_for(TIMEOUT)
    watched.handle.cell.end()
    watched.turn_until(lambda: not watched.handle.cell.word(WATCHED))
    assert watched.hung == []
    watched.busy_for(TIMEOUT + GRACE)
    assert len(watched.hung) == 1


def test_looked_away_from_only_while_idle(watched: Watched) -> None:
    """And then no deadline is left: nothing wakes the master for it."""
    watched.busy_for(0.0)
    assert not watched.watch.rest(watched.handle)
    assert watched.handle.cell.word(WATCHED)
    watched.handle.cell.end()
    assert watched.watch.rest(watched.handle)
    assert not watched.handle.cell.word(WATCHED)
    assert watched.loop.timeout() is None
    for _ in range(3):  # however often it pauses, one deadline is enough
        watched.busy_for(0.0)
        watched.handle.cell.end()
        watched.handle.cell.set_word(WATCHED, 0)
    assert sum(not each.cancelled for _, _, each in watched.loop._deadlines) == 1


def test_busy_with_another_request_by_now(watched: Watched) -> None:
    watched.busy_for(TIMEOUT + GRACE - 0.05)
    younger = time.monotonic()
    watched.handle.cell.begin(younger)
    watched.turn_until(lambda: watched.hung)
    assert time.monotonic() >= younger + TIMEOUT + GRACE


@pytest.mark.parametrize("event", [WorkerEvent.HANG, WorkerEvent.KILL])
def test_who_is_being_ended_is_not_ended_again(watched: Watched, event: WorkerEvent) -> None:
    watched.handle.advance(event)
    watched.busy_for(TIMEOUT + GRACE + 1)
    assert watched.hung == []


def test_a_worker_that_retires_may_hang_too(watched: Watched) -> None:
    watched.handle.advance(WorkerEvent.RETIRE)
    assert watched.handle.phase is Phase.RETIRING
    watched.busy_for(TIMEOUT + GRACE + 1)
    assert len(watched.hung) == 1


def test_without_a_time_out_nobody_hangs() -> None:
    with closing(Watched(timeout=0)) as watched:
        watched.busy_for(1e6)
        assert watched.hung == []


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, 1e300, -math.inf])
def test_a_time_that_a_broken_worker_has_written_ends_no_master(watched: Watched, nonsense: float) -> None:
    """It is watched from now on instead: what it does next is seen."""
    watched.handle.cell.begin(nonsense)
    watched.watch.busy(watched.handle)
    assert (watched.loop.timeout() or 0.0) <= TIMEOUT + GRACE, "nobody waits for a time that never comes"
    watched.busy_for(TIMEOUT + GRACE + 0.5)
    watched.watch.busy(watched.handle)
    assert watched.hung


class AtRest(Watched):
    """An idle worker, of `threads` that call the application; at a time of its own."""

    def __init__(self, threads: int = 0, polls: int = 1) -> None:
        self.now = 1000.0
        super().__init__(clock=lambda: self.now)
        self.handle.worker.counters = CounterCell.private()
        self.handle.worker.counters.set(THREADS, threads)
        self.handle.worker.counters.set(POLLS, polls)

    def asked(self) -> int:
        """How often it was, since the last time."""
        count = 0
        while True:
            try:
                assert self.theirs.recv(100) == POLL
            except BlockingIOError:
                return count
            count += 1

    def answers(self) -> None:
        for _ in range(self.asked()):
            self.handle.worker.counters.add(POLLS)

    def after(self, seconds: float = TIMEOUT + GRACE) -> None:
        self.now += seconds
        if self.loop.timeout() == 0.0:
            self.loop.turn()


@pytest.fixture
def at_rest() -> Iterator[AtRest]:
    with closing(AtRest()) as at_rest:
        yield at_rest


def test_an_event_loop_that_does_not_poll_hangs_without_a_request(at_rest: AtRest) -> None:
    at_rest.watch.serves(at_rest.handle)
    at_rest.after()
    for _ in range(3):
        at_rest.answers()
        at_rest.after()
    assert at_rest.hung == []
    at_rest.after()
    assert at_rest.hung == [TIMEOUT + GRACE]


def test_who_is_asked_is_not_asked_again_before_the_time_is_over(at_rest: AtRest) -> None:
    for _ in range(3):
        assert at_rest.watch.rest(at_rest.handle)
    assert at_rest.asked() == 1


@pytest.mark.parametrize(("threads", "polls"), [(1, 1), (4, 1), (0, 0)], ids=["one thread", "four", "it cannot answer"])
def test_who_cannot_hang_at_rest_or_not_answer_sleeps(threads: int, polls: int) -> None:
    """One process of one thread stands for all: four have more only where they are another's."""
    with closing(AtRest(threads, polls)) as at_rest:
        at_rest.watch.serves(at_rest.handle)
        at_rest.after()
        assert at_rest.watch.rest(at_rest.handle)
        assert at_rest.asked() == 0
        assert at_rest.loop.timeout() is None


def test_another_thread_is_a_reason_to_ask(at_rest: AtRest, monkeypatch: pytest.MonkeyPatch) -> None:
    at_rest.handle.worker.counters.set(THREADS, 4)
    status = "State:\tS (sleeping)\nThreads:\t{}\nSigPnd:\t0\nShdPnd:\t0\nSigCgt:\t0\n"
    for threads, asked in ((5, 0), (6, 1)):  # the watcher is the fifth
        found = read(status.format(threads).encode())
        monkeypatch.setattr("sdserve.arbiter.worker_handle.standing", lambda pid, found=found: found)
        at_rest.watch.rest(at_rest.handle)
        assert at_rest.asked() == asked


def test_what_keeps_a_worker_from_answering_and_is_no_hang(at_rest: AtRest) -> None:
    """A request, which has a time of its own; a SIGSTOP, which has one, too; a master that stood still itself."""
    cell, handle = at_rest.handle.cell, at_rest.handle
    at_rest.watch.rest(handle)
    cell.begin(at_rest.now)
    at_rest.after()
    cell.end()
    at_rest.watch.rest(handle)
    handle.stopped = True
    at_rest.after()
    at_rest.after()
    handle.stopped = False
    at_rest.after(1000)
    at_rest.after(1000)
    assert at_rest.hung == []
    at_rest.after()
    assert at_rest.hung


def test_who_ceases_to_poll_and_says_so_is_left_alone(at_rest: AtRest) -> None:
    """Its one thread waits in a connection that the application has taken over."""
    at_rest.watch.rest(at_rest.handle)
    at_rest.handle.worker.counters.set(POLLS, 0)
    at_rest.after()
    at_rest.after()
    assert at_rest.hung == []


def test_who_leaves_has_another_deadline(at_rest: AtRest) -> None:
    at_rest.watch.rest(at_rest.handle)
    at_rest.handle.advance(WorkerEvent.RETIRE)
    at_rest.after()
    assert at_rest.hung == []
    assert at_rest.loop.timeout() is None


def test_one_that_has_ended_is_not_waited_for(watched: Watched) -> None:
    watched.busy_for(0.1)
    assert watched.loop.timeout() is not None
    watched.kill()
    watched.turn_until(lambda: not len(watched.children))
    assert watched.loop.timeout() is None
    watched.busy_for(TIMEOUT + GRACE + 1)
    assert watched.hung == []
