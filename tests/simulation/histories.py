"""Histories: drawn by hypothesis, which shrinks a bad one to a short story, or by a seeded generator, which is quick
enough for millions of events; `shortest` shrinks what the latter finds."""

import random
from collections.abc import Collection, Iterator, Sequence

from hypothesis import strategies as st

from tests.simulation.descriptors import real_ones_closed
from tests.simulation.events import Event, Step, What
from tests.simulation.plan import EXCLUSIVE, Plan
from tests.simulation.promises import Broken
from tests.simulation.world import World

# How often what happens. Boots must succeed more often than they fail, or nothing else is ever reached.
WEIGHTS = {
    What.READY: 60,
    What.LEAVES: 24,
    What.TIME: 20,
    What.ACKNOWLEDGES: 12,
    What.DIES: 10,
    What.WORN: 8,
    What.MASTER_STARTS: 8,
    What.SERVICE_STARTS: 6,
    What.USR2: 6,
    What.HUP: 5,
    What.TTIN: 4,
    What.TTOU: 4,
    What.BOOT_FAILS: 4,
    What.BUSY: 3,
    What.DEPLOY: 3,
    What.BOOT_KILLED: 2,
    What.MUTE: 2,
    What.TERMED: 2,
    What.STOPPED: 2,
    What.CONTINUED: 3,
    What.IDLE: 2,
    What.MASTER_STOPPED: 1,
    What.MASTER_CONTINUED: 3,
    What.MASTER_FAILS: 1,
    What.MASTER_KILLED: 1,
    What.TERM: 1,
    What.RTMIN: 1,
    What.UNIT_STOPS: 0.2,
    What.UNIT_RESTARTS: 0.3,
    What.INT: 0.3,
    What.QUIT: 0.3,
    What.USR1: 0.5,
    What.WINCH: 1,
    What.EVERYBODY: 1,
    What.ASKED_TO_RELOAD: 1,
    What.ASKED_TO_UPGRADE: 1,
    What.NO_ROOM: 1,
    What.HOOK_RAISES: 2,
    What.STEP_LASTS: 1,
    What.DEAF: 0.5,
    What.LEAP: 1,
}
KINDS = list(WEIGHTS)
LEAPS = (0.01, 0.05, 0.2, 1.0, 1.5, 5.0, 12.0, 31.0)
SUSPENDS = (2.0, 40.0, 100000.0)
SURGES = (0, 0, 1, 2, EXCLUSIVE)
AGES = (0, 0, 20)
WATCHDOGS = (0, 0, 4, 30)
IDLE = (0, 0, 6)
GPUS = (1, 2, 2, 3)
LAGS = (0, 0, 0, 1, 2, 3)

numbers = st.integers(0, 8)
events: st.SearchStrategy[Event] = st.one_of(
    st.tuples(
        st.sampled_from([*(what for what in WEIGHTS if what not in (What.TIME, What.LEAP)), What.DISK_FULL]),
        *(numbers, st.just(0.0)),
    ),
    st.tuples(st.just(What.TIME), st.just(0), st.sampled_from(LEAPS)),
    st.tuples(st.just(What.LEAP), st.just(0), st.sampled_from(SUSPENDS)),
    st.tuples(st.just(What.DEPLOY), numbers, numbers.map(float)),
)
steps: st.SearchStrategy[Step] = st.tuples(st.lists(events, min_size=1, max_size=4), st.sampled_from((0, 1, 2, 3)))
plans = st.builds(
    Plan,
    st.integers(1, 4),
    st.sampled_from(SURGES),
    st.integers(1, 3),
    st.sampled_from(AGES),
    st.booleans(),
    st.booleans(),
    st.sampled_from(WATCHDOGS),
    st.sampled_from(IDLE),
)
histories = st.lists(steps, max_size=30)


def random_plan(dice: random.Random) -> Plan:
    return Plan(
        dice.randint(1, 5),
        dice.choice(SURGES),
        dice.choice(GPUS),
        dice.choice(AGES),
        dice.random() < 0.6,
        dice.random() < 0.4,
        dice.choice(WATCHDOGS),
        dice.choice(IDLE),
    )


def random_steps(dice: random.Random, often: Collection[What] = ()) -> Iterator[Step]:
    """Endless steps of one to four events each; those of `often` make a third of them."""
    share = sum(WEIGHTS.values()) / 2 / max(1, len(often))
    chances = [chance + share * (kind in often) for kind, chance in WEIGHTS.items()]
    while True:
        kinds = dice.choices(KINDS, chances, k=dice.choice((1, 1, 1, 2, 3, 4)))
        yield [(what, dice.randrange(16), _much(what, dice)) for what in kinds], dice.choice(LAGS)


def _much(what: What, dice: random.Random) -> float:
    if what is What.TIME:
        return dice.choice(LEAPS)
    return dice.choice(SUSPENDS) if what is What.LEAP else float(dice.randrange(9))


def live(plan: Plan, history: Sequence[Step]) -> World:
    """One whole life of a service: its start, all that happens, its rest and its end."""
    with real_ones_closed():
        world = World(plan)
        for step in history:
            world.step(step)
        world.calm_down()
        world.end()
    return world


def drive(seed: int, length: int) -> int:
    """A life of `length` steps from a seed; how much happened. What breaks is told as shortly as it can be."""
    dice = random.Random(seed)
    plan = random_plan(dice)
    history = [step for _, step in zip(range(length), random_steps(dice), strict=False)]
    try:
        return live(plan, history).events
    except Broken as error:
        raise shortest(plan, history, error) from None


def shortest(plan: Plan, history: Sequence[Step], error: Broken) -> Broken:
    """The same promise broken by fewer steps and events: what can be left out is (delta debugging)."""
    events: list[tuple[Event | None, int]] = []
    for told, lag in history:
        events += [(event, 3) for event in told] + [(None, lag)]
    size = len(events) // 2
    while size:
        at = 0
        while at < len(events):
            fewer = events[:at] + events[at + size :]
            found = _breaks(plan, fewer, error.promise)
            if found is None:
                at += size
            else:
                events, error = fewer, found
        size //= 2
    return error


def _breaks(plan: Plan, events: Sequence[tuple[Event | None, int]], promise: str) -> Broken | None:
    history: list[Step] = []
    waiting: list[Event] = []
    for event, lag in events:
        if event is None:
            history.append((waiting, lag))
            waiting = []
        else:
            waiting.append(event)
    try:
        live(plan, [*history, (waiting, 0)])
    except Broken as error:
        return error if error.promise == promise else None
    return None
