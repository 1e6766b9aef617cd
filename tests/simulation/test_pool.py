"""The pool keeps its promises, whatever happens in whatever order.

A few thousand short histories are drawn by hypothesis, and long ones by a seeded generator until as many events have
happened as SIMULATION_EVENTS says (default 60000). For a million:

    SIMULATION_EVENTS=1000000 .venv/bin/python -m pytest -s tests/simulation
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings

from sdserve.arbiter import pool
from tests.simulation.histories import drive, histories, worlds
from tests.simulation.world import Turn, World

EVENTS = int(os.environ.get("SIMULATION_EVENTS", "60000"))
SHARDS = 4  # for pytest-xdist


@settings(max_examples=max(400, EVENTS // 100), deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(worlds, histories)
def test_any_short_history(world: World, turns: list[Turn]) -> None:
    for turn in turns:
        world.turn(turn)
    world.calm_down()
    world.end()


@pytest.mark.parametrize("shard", range(SHARDS))
def test_long_histories(shard: int) -> None:
    happened = seed = 0
    while happened < EVENTS / SHARDS:
        happened += drive(seed * SHARDS + shard, 150, pool.decide)
        seed += 1
    print(f"shard {shard}: {happened} events in {seed} lives of a master")
