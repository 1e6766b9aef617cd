"""A loop that fails goes on for as long as it serves anybody: histories of failing polls, and what the guard says."""

import random

import pytest

from sdserve.workers.guard import FAULTS, LAST, LONGEST, RECOVERED, Guard, Verdict


class Loop:
    """A loop whose polls fail, and a clock."""

    def __init__(self) -> None:
        self.guard = Guard()
        self.now = 1000.0
        self.polled = 0.0
        self.asked = False

    def fails(self) -> Verdict:
        verdict = self.guard.failed(self.now, self.polled)
        self.asked |= verdict.replaced
        self.now += verdict.pause
        return verdict

    def polls(self) -> None:
        self.polled = self.now


def test_one_failure_costs_a_moment() -> None:
    assert Loop().fails() == Verdict(0.04, replaced=False, over=False)


def test_who_cannot_poll_waits_longer_each_time_asks_for_its_replacement_and_ends_at_last() -> None:
    loop = Loop()
    verdicts = [loop.fails() for _ in range(LAST + 1)]
    pauses = [verdict.pause for verdict in verdicts]
    assert pauses == sorted(pauses) and pauses[-1] == LONGEST
    assert [verdict.replaced for verdict in verdicts] == [number >= FAULTS for number in range(1, LAST + 2)]
    assert [verdict.over for verdict in verdicts] == [False] * LAST + [True]


def test_who_polls_in_between_never_ends_by_itself() -> None:
    loop = Loop()
    for _ in range(1000):
        verdict = loop.fails()
        assert verdict.pause < LONGEST / 10 and not verdict.over
        loop.polls()
    assert loop.asked


def test_what_is_over_for_long_is_forgotten() -> None:
    loop = Loop()
    for _ in range(1000):
        loop.fails()
        loop.polls()
        loop.now += RECOVERED
    assert not loop.asked


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95])
def test_any_history_of_failing_polls_and_logs(share: float) -> None:
    """Polls fail in this share of turns, and now and then what a turn does after its poll fails as well.

    Promises: never a pause longer than the longest; it ends only after LAST failures without a poll in between; and
    who fails all the time has asked for its replacement long before.
    """
    for seed in range(300):
        dice, loop = random.Random(seed), Loop()
        row = failures = 0
        for _ in range(400):
            loop.now += dice.choice((0.0, 0.001, 0.1, 0.3))
            if dice.random() < share:
                row, failures = row + 1, failures + 1
                verdict = loop.fails()
            else:
                row = 0
                loop.polls()
                if dice.random() > 0.02:
                    continue
                row, failures = 1, failures + 1
                verdict = loop.fails()
            assert 0 < verdict.pause <= LONGEST
            if verdict.over:
                assert row > LAST and loop.asked and failures > FAULTS
                break
