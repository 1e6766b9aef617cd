"""The conversation with systemd: time asked for while it is needed, and a heartbeat only of a healthy service."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sdserve.arbiter.lifecycle import MasterEvent
from tests.unit.arbiter import services


class Unit(services.Unit):
    """Its watchdog expects a sign of life every 60 ms."""

    def __init__(self, path: Path, *, muted: bool = False) -> None:
        super().__init__(path, 60_000, muted=muted)

    def turn_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.loop.call_at(until, lambda: None)
        while time.monotonic() < until:
            self.loop.turn()

    def heard(self, name: str) -> int:
        """How often the manager has heard `name` by now."""
        return sum(name in message for message in self.messages())


@pytest.fixture
def unit(short_path: Path) -> Iterator[Unit]:
    with closing(Unit(short_path)) as unit:
        yield unit


def test_the_watchdog_is_pinged_again_and_again(unit: Unit) -> None:
    unit.speaker.ping()
    unit.turn_until(lambda: unit.heard("WATCHDOG=1") >= 3)


def test_not_while_nobody_can_answer_and_again_afterwards(unit: Unit) -> None:
    unit.healthy = False
    unit.speaker.ping()
    unit.turn_for(0.1)
    assert unit.heard("WATCHDOG=1") == 0
    unit.healthy = True
    unit.turn_until(lambda: unit.heard("WATCHDOG=1"))


def test_time_is_asked_for_until_it_is_not_needed_any_more(unit: Unit) -> None:
    unit.speaker.ask_for_time(True)
    unit.speaker.ask_for_time(True)
    assert unit.heard("EXTEND_TIMEOUT_USEC") == 1
    unit.turn_until(lambda: unit.heard("EXTEND_TIMEOUT_USEC") == 2)
    unit.speaker.ask_for_time(False)
    unit.turn_for(0.6)
    assert unit.heard("EXTEND_TIMEOUT_USEC") == 2


def test_a_new_main_process_pings_at_once(short_path: Path) -> None:
    with closing(Unit(short_path, muted=True)) as unit:
        unit.speaker.ping()
        assert unit.heard("WATCHDOG=1") == 0
        unit.speaker.become_main()
        assert unit.heard("WATCHDOG=1") == 1
        assert unit.heard("READY=1") == 0, "from systemd 262 that would hide the end of a reload"


def test_after_the_hand_over_nothing_more_is_said(unit: Unit) -> None:
    late: list[bool] = []
    unit.speaker.main_pid(17, late=lambda: late.append(True))
    unit.speaker.stopping()
    assert unit.heard("MAINPID=17") == 1
    assert unit.heard("STOPPING=1") == 0
    assert late == []


def test_what_is_sent_to_the_main_process_may_come_here_until_systemd_has_heard_of_another(unit: Unit) -> None:
    unit.speaker.main_pid(17, late=lambda: None)
    assert unit.speaker.may_mean_us
    assert unit.heard("BARRIER=1") == 1  # what reads the message without its descriptor closes that
    unit.turn_until(lambda: not unit.speaker.may_mean_us)


def test_a_master_that_leaves_asks_for_time_though_nobody_can_answer(unit: Unit) -> None:
    unit.healthy = False
    unit.service.advance(MasterEvent.SERVES)
    unit.service.advance(MasterEvent.STOP)
    unit.speaker.report()
    unit.turn_until(lambda: unit.heard("EXTEND_TIMEOUT_USEC") >= 2)
