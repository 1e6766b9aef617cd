"""What memory pressure leads to, and when: as a function, for long stretches of it, and with workers at hand."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdserve.arbiter.lifecycle import Master, Phase
from sdserve.arbiter.relief import (
    GIVE_EVERY,
    PATIENCE,
    QUIET,
    REPLACE_EVERY,
    MemoryRelief,
    Pressure,
    Relief,
    decide,
)
from sdserve.systemd.memory_pressure import MemoryPressure
from sdserve.workers.words import GIVE_BACK
from tests.unit.arbiter.services import service

NOTHING = Relief()


def told(*times: float, can_replace: bool = True) -> list[Relief]:
    """What each word leads to."""
    pressure, found = Pressure(), []
    for now in times:
        pressure, relief = decide(pressure, now, can_replace=can_replace)
        found.append(relief)
    return found


def test_first_workers_give_back_then_one_is_replaced() -> None:
    assert told(100, 102, 104, 106, 108) == [Relief(ask=True), *[NOTHING] * 4]
    assert told(100, 102, 104, 106, 108, 110) == [Relief(ask=True), *[NOTHING] * 4, Relief(recycle=True)]
    assert told(100, 105, 110, can_replace=False)[-1] == NOTHING


def test_pressure_that_comes_and_goes_replaces_nobody() -> None:
    assert not any(relief.recycle for relief in told(*range(100, 1000, int(QUIET) + 1)))


@given(st.lists(st.floats(0, 20), max_size=200))
def test_however_long_it_lasts_there_are_limits(gaps: list[float]) -> None:
    now, times = 0.0, []
    for gap in gaps:
        now += gap
        times.append(now)
    done = list(zip(times, told(*times), strict=True))
    for kind, least in (("ask", GIVE_EVERY), ("recycle", REPLACE_EVERY)):
        at = [when for when, relief in done if getattr(relief, kind)]
        assert all(later - sooner >= least for sooner, later in pairwise(at))
    assert not any(relief.ask and relief.recycle for _, relief in done)
    first = next((when for when, relief in done if relief.recycle), None)
    assert first is None or first - times[0] >= PATIENCE


class Worker(SimpleNamespace):
    """What is asked of a worker's handle."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, pid: int, served: float) -> None:
        super().__init__(pid=pid, phase=Phase.SERVING, worn=False, heard=[])
        self.served = lambda: served
        self.tell = self.heard.append


class Source:
    """Pressure that is told each time that it is asked for."""

    def __init__(self, path: Path) -> None:
        self.words = 0
        self._file = path.open("w+b")
        self.fileno = self._file.fileno
        self.close = self._file.close

    def heard(self) -> bool:
        self.words += 1
        return True


def test_the_largest_of_those_that_have_served_for_long_is_replaced_one_at_a_time(
    monkeypatch: Any, tmp_path: Any
) -> None:
    state = service()
    workers = [Worker(1, 900.0), Worker(2, 900.0), Worker(3, 5.0)]
    state.children = workers  # type: ignore[assignment]
    state.state = Master.RUNNING
    now = 100.0
    monkeypatch.setattr(state.loop, "now", lambda: now)
    monkeypatch.setattr(state.loop, "watch", lambda what, callback: None)
    relief = MemoryRelief(state, Source(tmp_path / "source"), {1: 10, 2: 20, 3: 90}.__getitem__)  # type: ignore[arg-type]
    for _ in range(100):
        relief._heard()
        now += 2.0
    assert [worker.worn for worker in workers] == [False, True, False], "as long as it is there, no other is"
    assert all(worker.heard.count(GIVE_BACK) > 3 for worker in workers)
    workers[1].worn = False
    state.state = Master.RELOADING
    for _ in range(100):
        relief._heard()
        now += 2.0
    assert not any(worker.worn for worker in workers)


@pytest.mark.parametrize("environ", [{}, {"MEMORY_PRESSURE_WATCH": ""}, {"MEMORY_PRESSURE_WATCH": "/dev/null"}])
def test_where_nobody_tells_nothing_is_watched(environ: dict[str, str]) -> None:
    assert MemoryPressure.from_environ(environ) is None
