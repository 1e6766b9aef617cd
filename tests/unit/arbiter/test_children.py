"""What the master hears of its workers, and what becomes of those that cannot end."""

import errno
import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from sdserve.arbiter.lifecycle import Phase, WorkerEvent
from sdserve.workers.told import READY, RECYCLE, USING
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
