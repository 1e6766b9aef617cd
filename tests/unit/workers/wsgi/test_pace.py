"""Which calls are expected to be slow."""

from sdserve.workers.wsgi.pace import (
    CEILING,
    IN_DEMAND,
    PATHS,
    PROMOTE_AFTER,
    RAREST,
    THRESHOLD,
    TRIAL,
    Pace,
    overstays,
)


def test_nothing_is_expected_of_the_unknown() -> None:
    pace = Pace()
    assert pace.calm
    assert not pace.expect_slow("/a")


def trials(pace: Pace, path: str, calls: int) -> int:
    """How many of so many calls of a path that is still slow are called with the lead."""
    found = 0
    for _ in range(calls):
        if not pace.expect_slow(path):
            found += 1
            pace.was_slow(path)
    return found


def test_a_path_is_expected_to_do_what_it_did_last_time() -> None:
    pace = Pace()
    pace.was_slow("GET /a")
    assert pace.expect_slow("GET /a")
    assert not pace.expect_slow("POST /a")
    pace.was_quick("GET /a")
    assert not pace.expect_slow("GET /a")


def test_a_slow_path_is_tried_soon_and_more_and_more_rarely() -> None:
    pace = Pace()
    pace.was_slow("GET /a")
    assert trials(pace, "GET /a", TRIAL + 1) == 1
    assert trials(pace, "GET /a", 2 * TRIAL + 1) == 1
    assert trials(pace, "GET /a", 1000) < 1000 / RAREST + 5


def test_one_slow_call_of_a_quick_path_costs_a_few_switches() -> None:
    pace = Pace()
    pace.was_slow("GET /a")
    assert [pace.expect_slow("GET /a") for _ in range(TRIAL + 1)] == [True] * TRIAL + [False]
    pace.was_quick("GET /a")
    assert not pace.expect_slow("GET /a")


def test_a_call_is_not_cut_short_unless_something_else_waits() -> None:
    assert not overstays(IN_DEMAND, in_demand=False)
    assert overstays(IN_DEMAND, in_demand=True)
    assert overstays(PROMOTE_AFTER, in_demand=False)
    assert not overstays(IN_DEMAND / 2, in_demand=True)


def test_when_slow_is_the_rule_the_unknown_is_slow_too_until_it_is_tried() -> None:
    pace = Pace()
    for number in range(4):
        pace.was_slow(f"/{number}")
    assert pace.expect_slow("/new")
    calls = 0
    for number in range(1000):
        if not pace.expect_slow(f"/new/{number}"):
            pace.was_quick(f"/new/{number}")
            calls = number + 1
            if pace._score < THRESHOLD:
                break
    assert calls <= (TRIAL + 1) * (CEILING - THRESHOLD + 1)
    for number in range(CEILING):
        pace.was_quick(f"/{number}")
    assert pace.calm


def test_a_few_slow_ones_among_many_are_no_rule() -> None:
    pace = Pace()
    for number in range(100):
        pace.was_slow(f"/{number}")
        for _ in range(20):
            pace.was_quick("/quick")
        assert not pace.expect_slow("/new")


def test_the_memory_is_bounded_and_keeps_the_latest() -> None:
    pace = Pace()
    for number in range(2 * PATHS):
        pace.was_slow(f"/{number}")
        for _ in range(20):
            pace.was_quick("/quick")
    assert not pace.expect_slow("/0")
    assert pace.expect_slow(f"/{2 * PATHS - 1}")
    assert len(pace._paths) <= PATHS
