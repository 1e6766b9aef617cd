"""Histories for the simulated master: drawn by hypothesis, which shrinks a bad one to a short story, or by a seeded
generator, which is quick enough for millions of events."""

import random
from collections.abc import Iterator

from hypothesis import strategies as st

from tests.simulation.world import Decide, Event, Turn, What, World

# How often what happens. Boots must succeed more often than they fail, or nothing else is ever reached.
WEIGHTS = {
    What.READY: 30,
    What.LEAVES: 14,
    What.TIME: 12,
    What.DIES: 8,
    What.WORN: 8,
    What.TTIN: 4,
    What.TTOU: 4,
    What.HUP: 3,
    What.BOOT_FAILS: 3,
    What.BOOT_KILLED: 2,
    What.TERMED: 2,
    What.STOPPED: 2,
    What.CONTINUED: 2,
    What.WINCH: 1,
}
KINDS, CHANCES = list(WEIGHTS), list(WEIGHTS.values())
SURGES = (0, 0, 1, 2)
AGES = (0.0, 0.0, 20.0)
LEAPS = (0.01, 0.05, 0.2, 1.0, 1.5, 5.0, 12.0, 31.0, 100000.0)  # the last: the machine slept

numbers = st.integers(0, 8)
events: st.SearchStrategy[Event] = st.one_of(
    st.tuples(st.sampled_from([what for what in WEIGHTS if what not in (What.TIME, What.HUP)]), numbers, st.just(0.0)),
    st.tuples(st.just(What.TIME), st.just(0), st.sampled_from(LEAPS)),
    st.tuples(st.just(What.HUP), numbers, numbers.map(float)),
)
turns: st.SearchStrategy[Turn] = st.lists(events, min_size=1, max_size=4)
worlds = st.builds(World, st.integers(1, 5), st.integers(1, 4), st.sampled_from(SURGES), st.sampled_from(AGES))
histories = st.lists(turns, max_size=30)


def random_turns(seed: int) -> Iterator[Turn]:
    """Endless turns of one to four events each."""
    dice = random.Random(seed)
    while True:
        kinds = dice.choices(KINDS, CHANCES, k=dice.choice((1, 1, 1, 2, 3, 4)))
        yield [
            (what, dice.randrange(16), dice.choice(LEAPS) if what is What.TIME else float(dice.randrange(9)))
            for what in kinds
        ]


def drive(seed: int, turns: int, decide: Decide) -> int:
    """One whole life of a master, from its start over `turns` turns to its rest and its end; how much happened."""
    dice = random.Random(seed)
    surge, max_age = dice.choice(SURGES), dice.choice(AGES)
    world = World(dice.randint(1, 6), dice.randint(1, 4), surge, max_age, decide)
    for _, turn in zip(range(turns), random_turns(seed), strict=False):
        world.turn(turn)
    world.calm_down()
    world.end()
    return world.events
