"""What the master hears of its workers, and what becomes of those that cannot end."""

import errno
import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from sdserve.arbiter.children import ENDS_WITHIN, KILL_AFTER, SERVES_FOR
from sdserve.arbiter.decide import Backoff, Decision, Goal, Spawn, decide
from sdserve.arbiter.hang import GRACE
from sdserve.arbiter.lifecycle import Phase, WorkerEvent
from sdserve.arbiter.worker_handle import cause_of_end
from sdserve.workers.words import READY, RECYCLE, USING
from tests.unit.arbiter.turning import Family


@pytest.fixture
def family() -> Iterator[Family]:
    with closing(Family()) as family:
        yield family


def test_what_stands_behind_a_word_that_fails_is_heard(family: Family) -> None:
    """And hung requests of that worker are noticed: its words are all that the master has to go by."""
    family.fails = [OSError(errno.EMFILE, os.strerror(errno.EMFILE))] * 2
    for message in (USING + b"one", USING + b"two", READY, USING + b"three", RECYCLE):
        family.theirs.send(message)
    family.turn_until(lambda: family.handle.worn)
    assert family.heard == ["ready", "three"]
    assert family.handle.phase is Phase.SERVING


def turns_within(family: Family, seconds: float) -> int:
    """How often the loop turns meanwhile."""
    over: list[bool] = []
    family.loop.call_at(family.loop.now() + seconds, lambda: over.append(True))
    turns = 0
    while not over:
        family.loop.turn()
        turns += 1
    return turns


def test_a_worker_that_has_closed_its_channel_and_does_not_end_keeps_nobody_awake(family: Family) -> None:
    """Its last words are heard, and so is its end, whenever that comes."""
    family.theirs.send(READY)
    family.theirs.close()
    assert turns_within(family, 0.2) <= 4
    family.children.listen()
    assert turns_within(family, 0.1) <= 2
    assert family.heard == ["ready"]
    family.handle.advance(WorkerEvent.RETIRE)
    family.kill()
    family.turn_until(lambda: not len(family.children))
    assert family.heard == ["ready", "ended by 9"]


class Mute(Family):
    """A worker that closes its channel while its process lives on, at a time of the test's own."""

    def __init__(self, *, booted: bool = True, timeout: int = 30) -> None:
        self.now = 1000.0
        super().__init__(booted=booted, timeout=timeout, clock=lambda: self.now)

    def falls_silent(self) -> None:
        self.theirs.close()
        self.loop.turn()

    def after(self, seconds: float) -> None:
        """All that is due by then happens, each at its time."""
        until = self.now + seconds
        while (left := self.loop.timeout()) is not None and self.now + left <= until:
            self.now += left
            self.loop.turn()
        self.now = until

    def decided(self) -> Decision:
        return decide(self.children.members(), Goal(1, self.worker.generation), Backoff(), self.now)


def test_a_mute_worker_that_serves_is_replaced_in_order() -> None:
    """Its replacement is forked beside it, and not before it has served for a while: an application that closes the
    channel each time must not keep its master forking."""
    with closing(Mute()) as mute:
        mute.falls_silent()
        mute.after(ENDS_WITHIN)
        assert mute.log.events == ["worker-mute"]
        assert mute.decided() == Decision((), 1000.0 + SERVES_FOR)
        mute.after(SERVES_FOR - ENDS_WITHIN)
        assert mute.decided().actions == (Spawn(0),)
        assert mute.handle.phase is Phase.SERVING


def test_a_mute_worker_that_has_served_for_long_is_replaced_at_once() -> None:
    with closing(Mute()) as mute:
        mute.after(SERVES_FOR)
        mute.falls_silent()
        assert not mute.decided().actions, "it may be about to end"
        mute.after(ENDS_WITHIN)
        assert mute.decided().actions == (Spawn(0),)


def test_a_mute_worker_that_boots_has_failed_to() -> None:
    with closing(Mute(booted=False)) as mute:
        mute.falls_silent()
        mute.after(ENDS_WITHIN)
        assert mute.log.events == ["worker-mute"]
        assert mute.handle.phase is Phase.ABORTED
        assert mute.handle.reason == "it has closed its channel, and cannot say when it serves"
        assert mute.handle.deadline == mute.now + KILL_AFTER


@pytest.mark.parametrize("event", [WorkerEvent.RETIRE, WorkerEvent.HANG, WorkerEvent.KILL])
def test_a_mute_worker_that_leaves_is_let_leave(event: WorkerEvent) -> None:
    with closing(Mute()) as mute:
        mute.handle.advance(event, 20.0)
        before = mute.handle.member()
        mute.falls_silent()
        mute.after(SERVES_FOR)
        assert mute.handle.member() == before
        assert not mute.log.events


def test_a_worker_that_ends_was_not_mute() -> None:
    """Its channel ends a moment before its process does, if the master looks just then."""
    with closing(Mute()) as mute:
        mute.falls_silent()
        mute.kill()
        mute.loop.turn()
        assert mute.heard == ["ended by 9"]
        assert mute.loop.timeout() is None
        assert mute.log.events == ["worker-died"]


@pytest.mark.parametrize("rests", [False, True], ids=["", "an idle master looks away from its workers"])
@pytest.mark.parametrize("idle", [0.0, 0.5, 3.0, 30.0])
def test_a_mute_worker_that_hangs_is_noticed(idle: float, rests: bool) -> None:
    """It cannot say that it is busy, and its mark on the scoreboard tells: whenever the request began."""
    with closing(Mute(timeout=2)) as mute:
        mute.falls_silent()
        mute.after(idle)
        if rests:
            mute.children.rest()
        mute.handle.cell.begin(mute.now)
        mute.after(2 + GRACE - 0.01)
        assert "worker-timeout" not in mute.log.events
        mute.after(0.02)
        assert mute.log.events[-1] == "worker-timeout"
        assert mute.handle.phase is Phase.ABORTED


def test_without_a_time_out_nobody_looks_at_a_mute_worker() -> None:
    with closing(Mute(timeout=0)) as mute:
        mute.falls_silent()
        mute.after(ENDS_WITHIN)
        mute.children.rest()
        assert mute.loop.timeout() is None


@pytest.mark.parametrize(("age", "cause"), [(1.0, "recycled"), (-1.0, "told")])
def test_the_end_of_a_worker_that_is_old_enough_counts_as_recycled(family: Family, age: float, cause: str) -> None:
    family.handle.advance(WorkerEvent.READY)
    family.handle.worn_at = family.loop.now() - age
    family.children.retire(family.handle)
    assert cause_of_end(family.handle, 0) == cause
