"""The tables: nothing unreachable, nothing without an end, and no move that is not in them."""

from enum import Enum
from itertools import product
from typing import TypeVar

import pytest

from sdserve.arbiter.lifecycle import (
    MASTER,
    UPGRADE,
    WORKER,
    IllegalMoveError,
    Master,
    MasterEvent,
    Phase,
    Table,
    Upgrade,
    UpgradeEvent,
    WorkerEvent,
    advance,
    allows,
)

TABLES = [
    (MASTER, Master.STARTING, MasterEvent),
    (WORKER, Phase.BOOTING, WorkerEvent),
    (UPGRADE, Upgrade.NONE, UpgradeEvent),
]
all_tables = pytest.mark.parametrize(
    ("table", "first", "events"), TABLES, ids=[type(first).__name__ for _, first, _ in TABLES]
)


S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


def reachable(table: Table[S, E], start: S) -> set[S]:
    found, waiting = {start}, [start]
    while waiting:
        fresh = set(table[waiting.pop()].values()) - found
        found |= fresh
        waiting += fresh
    return found


@all_tables
def test_every_state_has_a_row_and_can_be_reached(table: Table[Enum, Enum], first: Enum, events: type[Enum]) -> None:
    assert set(table) == set(type(first)) == reachable(table, first)


@all_tables
def test_every_event_moves_something(table: Table[Enum, Enum], first: Enum, events: type[Enum]) -> None:
    assert {event for moves in table.values() for event in moves} == set(events)


@all_tables
def test_a_move_is_what_the_table_says_or_illegal(table: Table[Enum, Enum], first: Enum, events: type[Enum]) -> None:
    for state, event in product(table, events):
        if event in table[state]:
            assert allows(table, state, event)
            assert advance(table, state, event) is table[state][event]
        else:
            assert not allows(table, state, event)
            with pytest.raises(IllegalMoveError, match=f"{state.value}: no move for '{event.value}'"):
                advance(table, state, event)


@pytest.mark.parametrize("table,last", [(MASTER, Master.DOWN), (WORKER, Phase.GONE)])
def test_the_end_is_the_end_and_can_be_reached_from_everywhere(table: Table[Enum, Enum], last: Enum) -> None:
    assert not table[last]
    assert all(last in reachable(table, state) for state in table)


def test_a_process_may_end_at_any_time() -> None:
    assert all(WorkerEvent.EXIT in moves for phase, moves in WORKER.items() if phase is not Phase.GONE)


def test_a_worker_that_was_told_to_leave_never_serves_again() -> None:
    for phase in (Phase.RETIRING, Phase.ABORTED, Phase.KILLED):
        assert Phase.SERVING not in reachable(WORKER, phase)


def test_a_service_that_stops_does_not_start_again() -> None:
    assert reachable(MASTER, Master.STOPPING) == {Master.STOPPING, Master.DOWN}


def test_a_unit_that_was_handed_over_is_never_taken_back() -> None:
    assert reachable(UPGRADE, Upgrade.HANDED_OVER) == {Upgrade.HANDED_OVER, Upgrade.ENDING}
