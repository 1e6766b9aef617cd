"""Stacks of workers: whoever asks hears of each worker, also of one that ends or is stopped meanwhile."""

import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from sdserve.arbiter.stacks import LOOK_EVERY, Stacks
from sdserve.process import proc
from sdserve.status import WorkerStacks
from tests.support.waiting import eventually
from tests.unit.arbiter.turning import Family


class Silent(Family):
    """A worker that writes nothing when it is asked for its stacks, and what is told of it."""

    def __init__(self) -> None:
        self.now = 100.0
        super().__init__(clock=lambda: self.now)
        self.told: list[WorkerStacks] = []
        Stacks(self.loop).ask([self.handle], self.told.extend)

    def look(self) -> list[tuple[str, str]]:
        """What has been told when the master has looked once more."""
        self.now += LOOK_EVERY
        self.loop.turn()
        return [(each.trouble, each.stacks) for each in self.told]


@pytest.fixture
def silent() -> Iterator[Silent]:
    with closing(Silent()) as silent:
        yield silent


def test_a_worker_that_ends_while_it_is_asked_is_not_waited_for(silent: Silent) -> None:
    assert not silent.look()
    silent.kill()
    silent.children.reap(silent.handle)
    assert silent.look() == [("it has ended", "")]


def test_neither_is_one_that_is_stopped_meanwhile(silent: Silent) -> None:
    assert not silent.look()
    silent.handle.send(signal.SIGSTOP)
    eventually(lambda: proc.standing(silent.handle.pid).stopped, "it is stopped")
    [(trouble, stacks)] = silent.look()
    assert trouble.startswith("it was stopped (SIGSTOP") and not stacks
