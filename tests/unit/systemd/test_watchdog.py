"""How often systemd expects a sign of life, and from whom."""

import os

import pytest

from sdserve.systemd.watchdog import Watchdog


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
        ({}, None),
    ],
)
def test_half_of_what_systemd_allows(environ: dict[str, str], interval: float | None) -> None:
    # Under pytest-xdist this module is imported by the process that runs the test.
    assert Watchdog.from_environ(environ).interval(0) == interval
    assert environ == {}


@pytest.mark.parametrize(
    ("limit", "spare", "interval"), [(30, 6, 15), (10, 6, 4), (5, 4, 1), (5, 4.5, 0.5), (5, 6, 0.5), (1, 6, 0.1)]
)
def test_who_is_left_behind_has_time_to_finish(limit: float, spare: float, interval: float) -> None:
    """Whenever the last ping was, so much is left of what systemd allows, if it allows as much."""
    watchdog = Watchdog(int(limit * 1e6))
    assert watchdog.interval(spare) == interval
    assert watchdog.falls_short(spare) == (limit - interval < spare)


def test_a_successor_is_named() -> None:
    watchdog = Watchdog.from_environ({"WATCHDOG_USEC": "3000000"})
    assert watchdog.variables(17) == {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "17"}
    assert Watchdog(None).variables(17) == {}
