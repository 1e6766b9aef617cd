"""Masters keep their promises, whatever happens in whatever order.

Some hundred short histories are drawn by hypothesis, and longer ones by a seeded generator until as many events have
happened as SIMULATION_EVENTS says (default 8000). For a million:

    SIMULATION_EVENTS=1000000 .venv/bin/python -m pytest -s tests/simulation
"""

import os
import random
from enum import Enum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sdserve.arbiter import lifecycle
from sdserve.arbiter.host import Host
from tests.simulation.events import Step
from tests.simulation.histories import drive, histories, live, plans, random_plan, random_steps
from tests.simulation.machine import SimulatedHost
from tests.simulation.plan import Plan

EVENTS = int(os.environ.get("SIMULATION_EVENTS", "8000"))
SHARDS = 4  # for pytest-xdist
LENGTH = 100  # steps in a life


@settings(max_examples=max(100, EVENTS // 200), suppress_health_check=list(HealthCheck), database=None)
@given(plans, histories)
def test_any_short_history(plan: Plan, history: list[Step]) -> None:
    live(plan, history)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_long_histories(shard: int) -> None:
    happened = seed = 0
    while happened < EVENTS / SHARDS:
        happened += drive(seed * SHARDS + shard, LENGTH)
        seed += 1
    print(f"shard {shard}: {happened} events in the lives of {seed} services")


def test_histories_come_through_every_move_of_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation that never reached a state would promise nothing about it."""
    moves: set[tuple[Enum, Enum]] = set()

    def noted(table: Any, state: Enum, event: Enum) -> Enum:
        moves.add((state, event))
        after: Enum = lifecycle.advance(table, state, event)
        return after

    for module in ("service", "worker_handle"):
        monkeypatch.setattr(f"sdserve.arbiter.{module}.advance", noted)
    tables: list[Any] = [lifecycle.MASTER, lifecycle.WORKER, lifecycle.UPGRADE]
    wanted = {(state, event) for table in tables for state, events in table.items() for event in events}
    wanted -= {(state, lifecycle.MasterEvent.CRASH) for state in lifecycle.Master}  # would be a bug of its own
    wanted -= {(lifecycle.Phase.KILLED, lifecycle.WorkerEvent.KILL)}  # here the killed end at once
    over = (lifecycle.Upgrade.HANDED_OVER, lifecycle.Upgrade.ENDING)
    wanted -= {(state, lifecycle.UpgradeEvent.LOST) for state in over}  # too rare for a few hundred lives
    for seed in range(1000):
        dice = random.Random(seed)
        live(random_plan(dice), [step for _, step in zip(range(60), random_steps(dice), strict=False)])
        if moves >= wanted:
            return
    assert not wanted - moves


def test_nothing_of_the_machine_is_left_to_a_master() -> None:
    """What the simulated host did not replace would reach the real machine."""
    asked = {name for name, what in vars(Host).items() if callable(what) and not name.startswith("_")}
    assert asked and asked <= set(vars(SimulatedHost))
