"""Which calls are expected to be slow."""

from sdserve.workers.leaders import CEILING, PATHS, THRESHOLD, Pace


def test_nothing_is_expected_of_the_unknown() -> None:
    pace = Pace()
    assert pace.calm
    assert not pace.expect_slow("/a")


def test_a_path_is_expected_to_do_what_it_did_last_time() -> None:
    pace = Pace()
    pace.was_slow("/a")
    assert pace.expect_slow("/a")
    assert not pace.expect_slow("/b")
    pace.was_quick("/a")
    assert not pace.expect_slow("/a")


def test_when_slow_is_the_rule_the_unknown_is_slow_too() -> None:
    pace = Pace()
    for number in range(4):
        pace.was_slow(f"/{number}")
    assert pace.expect_slow("/new")
    for _ in range(CEILING - THRESHOLD + 1):
        pace.was_quick("/new")
    assert not pace.expect_slow("/new")
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
