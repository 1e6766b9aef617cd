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
    assert Watchdog.from_environ(environ).interval == interval
    assert environ == {}


def test_a_successor_is_named() -> None:
    watchdog = Watchdog.from_environ({"WATCHDOG_USEC": "3000000"})
    assert watchdog.variables(17) == {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "17"}
    assert Watchdog(None).variables(17) == {}
