"""What a failed boot means, in each state of the service."""

from itertools import product

import pytest

from sdserve.arbiter.lifecycle import Master
from sdserve.arbiter.verdict import BOOT_KILLS, LAST_BOOTS, Verdict, on_failed_boot


def verdict(state: Master, newest: bool = True, kills: int = 0, rounds: int = 1, some_serve: bool = True) -> Verdict:
    return on_failed_boot(state, newest=newest, kills=kills, rounds=rounds, some_serve=some_serve)


def test_the_first_start_fails_at_once() -> None:
    assert verdict(Master.STARTING, some_serve=False) is Verdict.HALT


def test_a_reload_is_rolled_back_by_its_own_workers_only() -> None:
    assert verdict(Master.RELOADING) is Verdict.ROLL_BACK
    assert verdict(Master.RELOADING, newest=False) is Verdict.IGNORE


def test_a_late_failure_of_a_rejected_generation_says_nothing_any_more() -> None:
    assert verdict(Master.RUNNING, newest=False, rounds=1000, some_serve=False) is Verdict.IGNORE


def test_a_running_service_tries_again_as_long_as_somebody_serves() -> None:
    assert verdict(Master.RUNNING, rounds=1000) is Verdict.RETRY
    assert verdict(Master.RUNNING, rounds=LAST_BOOTS - 1, some_serve=False) is Verdict.RETRY
    assert verdict(Master.RUNNING, rounds=LAST_BOOTS, some_serve=False) is Verdict.HALT


@pytest.mark.parametrize("state", [Master.STARTING, Master.RELOADING, Master.RUNNING])
def test_a_kill_from_outside_says_nothing_about_the_application_at_first(state: Master) -> None:
    assert verdict(state, kills=BOOT_KILLS - 1) is Verdict.RETRY
    assert verdict(state, kills=BOOT_KILLS) is verdict(state)


@pytest.mark.parametrize("state", [Master.STOPPING, Master.DOWN])
def test_a_service_that_ends_does_not_care(state: Master) -> None:
    for newest, kills, rounds, serve in product((True, False), range(5), range(8), (True, False)):
        assert verdict(state, newest, kills, rounds, serve) is Verdict.IGNORE
