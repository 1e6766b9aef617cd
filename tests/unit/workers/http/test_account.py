"""What a loop has answered, and since when it is busy: what others see of it, and when."""

import pytest

from sdserve.process.counter_memory import CounterMemory
from sdserve.process.counters import BYTES
from sdserve.workers.http.account import MARK, Account


class Kept(Account):
    """An account whose marks are kept."""

    def __init__(self) -> None:
        self.marks: list[float | None] = []
        self.memory = CounterMemory.private()
        super().__init__(self.marks.append, lambda: self.marks.append(None), self.memory.take())


@pytest.fixture
def account() -> Kept:
    return Kept()


def test_the_busy_mark_is_renewed_now_and_then(account: Kept) -> None:
    for now in (5.0, 5.0 + MARK / 2, 5.0 + MARK, 5.0 + 1.5 * MARK):
        account.turn(now)
    assert account.marked
    assert account.marks == [5.0, 5.0 + MARK]
    assert account.marked_at == 5.0 + MARK


def test_who_has_rested_is_marked_at_once(account: Kept) -> None:
    account.turn(5.0)
    account.rest()
    assert not account.marked
    account.turn(5.0 + MARK / 2)
    assert account.marked
    assert account.marks == [5.0, None, 5.0 + MARK / 2]


def test_what_was_answered_is_seen_once_it_is_taken(account: Kept) -> None:
    account.count, account.spent, account.size = 3, 0.006, 300  # as clients count what is usual
    account.tally("404 Not Found", 0.3)
    account.size += 9
    assert account.take_count() == 4
    assert account.take_count() == 0
    totals = account.memory.totals()
    assert {name: row.count for name, row in totals.answers.items() if row.count} == {"2xx": 3, "4xx": 1}
    assert totals.answers["2xx"].seconds == pytest.approx(0.006)
    assert totals.words[BYTES] == 309


def test_bytes_of_unusual_answers_are_counted_without_usual_ones(account: Kept) -> None:
    account.tally("500 Internal Server Error", 0.1)
    account.size = 21
    assert account.take_count() == 1
    assert account.memory.totals().words[BYTES] == 21
