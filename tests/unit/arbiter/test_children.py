"""What the master hears of its workers, and what becomes of those that cannot end."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from sdserve.arbiter.lifecycle import WorkerEvent
from sdserve.workers.told import READY
from tests.unit.arbiter.turning import Family


@pytest.fixture
def family() -> Iterator[Family]:
    with closing(Family()) as family:
        yield family


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
