"""A flood writes a few lines, and the next ones say how many it would have been."""

from hypothesis import given
from hypothesis import strategies as st

from sdserve.rate_limit import RateLimit
from tests.support.between import at_each_line

SAID: list[str] = []


def hear(what: str, *args: object) -> None:
    SAID.append(what % args)


def test_so_many_lines_in_each_interval() -> None:
    limit = RateLimit(3, 10)
    assert [limit.allows(now) for now in (100, 100, 105, 106, 109.9)] == [True, True, True, False, False]
    assert limit.kept_back == 2
    assert [limit.allows(now) for now in (110, 110, 110, 119)] == [True, True, True, False]


def test_the_first_line_after_a_flood_says_how_large_it_was() -> None:
    SAID.clear()
    limit = RateLimit(2, 10)
    for number in range(9):
        limit.say(100.0 + number, hear, "%d is wrong", number)
    assert SAID == ["0 is wrong", "1 is wrong"]
    limit.say(110.0, hear, "%s is wrong", "that")
    limit.say(110.0, hear, "this too")
    limit.say(111.0, hear, "not this")
    assert SAID[2:] == ["7 more of the kind that follows were not logged", "that is wrong", "this too"]


@given(st.lists(st.floats(0, 3)), st.integers(1, 5))
def test_every_line_is_said_or_counted_and_no_interval_has_more(steps: list[float], burst: int) -> None:
    limit, now, said = RateLimit(burst, 10), 1000.0, []
    for step in steps:
        now += step
        if limit.allows(now):
            said.append(now)
    assert len(said) + limit.kept_back == len(steps)
    for begin in said:
        assert sum(begin <= each < begin + 10 for each in said) <= 2 * burst


def test_threads_that_complain_at_once_do_not_undo_the_limit() -> None:
    said: list[bool] = []
    for _ in at_each_line(RateLimit.allows, lambda: said.append(limit.allows(100))):  # noqa: B023 - of this turn
        said.clear()
        limit = RateLimit(1, 10)
        said.append(limit.allows(100))
        assert 1 <= said.count(True) <= 2
        assert not any(limit.allows(now) for now in (100, 101, 109))
