"""Each promise that the simulation watches is worth something: it catches a fault planted in the decisions."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from sdserve.arbiter import pool
from sdserve.arbiter.lifecycle import Phase
from sdserve.arbiter.pool import Backoff, Decision, Goal, Member, Retire, Spawn
from tests.simulation.histories import drive
from tests.simulation.world import Broken, Decide


def takes_booting_for_serving(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    hasty = [replace(m, phase=Phase.SERVING) if m.phase is Phase.BOOTING else m for m in members]
    return pool.decide(hasty, goal, backoff, now)


def takes_stopped_for_serving(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return pool.decide([replace(m, stopped=False) for m in members], goal, backoff, now)


def forks_two_more(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return pool.decide(members, goal if goal.stopping else replace(goal, size=goal.size + 2), backoff, now)


def forgets_the_surge(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return pool.decide(members, replace(goal, surge=0), backoff, now)


def replaces_all_worn_at_once(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    decision = pool.decide(members, goal, backoff, now)
    worn = [m for m in members if m.worn and m.phase is Phase.SERVING and m.generation == goal.generation]
    fresh = {m.slot for m in members if m not in worn} | {a.slot for a in decision.actions if isinstance(a, Spawn)}
    slots = {m.slot for m in worn} - fresh if not goal.stopping else set()
    return replace(decision, actions=(*decision.actions, *map(Spawn, slots)))


def retires_worn_before_their_replacement_serves(
    members: Sequence[Member], goal: Goal, backoff: Backoff, now: float
) -> Decision:
    decision = pool.decide(members, goal, backoff, now)
    told = {action.age for action in decision.actions if isinstance(action, Retire)}
    serving = [m for m in members if m.phase is Phase.SERVING and m.age not in told]
    early = [
        Retire(m.age)
        for m in serving
        if m.worn and any(n.slot == m.slot and n.age > m.age and n.phase is Phase.BOOTING for n in members)
    ]
    return replace(decision, actions=(*decision.actions, *early[: len(serving) - 1]))


def does_not_see_who_boots(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return pool.decide([m for m in members if m.phase is not Phase.BOOTING], goal, backoff, now)


def forgets_the_gpus(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return pool.decide(members, replace(goal, gpus=1), backoff, now)


def does_not_replace_the_dead(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    decision = pool.decide(members, goal, backoff, now)
    return replace(decision, actions=tuple(a for a in decision.actions if not (members and isinstance(a, Spawn))))


def forgets_the_back_off(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return replace(pool.decide(members, goal, backoff, now), wake_at=None)


def does_not_stop(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return Decision() if goal.stopping else pool.decide(members, goal, backoff, now)


FAULTS: list[tuple[Decide, str]] = [
    (takes_booting_for_serving, "served"),
    (takes_stopped_for_serving, "served"),
    (takes_stopped_for_serving, "successor"),
    (forks_two_more, "surge"),
    (forgets_the_surge, "surge"),
    (replaces_all_worn_at_once, "recycling"),
    (retires_worn_before_their_replacement_serves, "successor"),
    (does_not_see_who_boots, "idempotent"),
    (forgets_the_back_off, "rest"),
    (forgets_the_gpus, "balance"),
    (does_not_replace_the_dead, "rest"),
    (does_not_stop, "end"),
]


def broken(decide: Decide, lives: int = 400) -> Iterator[str]:
    """The promises that short lives with a faulty judgement break, one after the other."""
    for seed in range(lives):
        try:
            drive(seed, 40, decide)
        except Broken as error:
            yield error.promise


@pytest.mark.parametrize(("fault", "promise"), FAULTS, ids=lambda each: getattr(each, "__name__", each))
def test_a_planted_fault_is_caught(fault: Decide, promise: str) -> None:
    assert promise in broken(fault)


def test_crowded_gpus_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the move from a crowded GPU to a free one, only kills and signals in unlucky order show it."""
    monkeypatch.setattr(pool, "crowded", lambda load, goal: False)
    assert "balance" in broken(pool.decide)


def test_the_judgement_itself_breaks_nothing() -> None:
    assert not list(broken(pool.decide, lives=100))
