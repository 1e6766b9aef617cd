"""The conversation with systemd: time asked for while it is needed, and a heartbeat only of a healthy service."""

import os
import selectors
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sdserve.arbiter.lifecycle import MasterEvent
from sdserve.arbiter.loop import Loop
from tests.support.notify import NotifySocket
from tests.unit.arbiter import services


class NewMaster:
    alive = True
    heard_of_late = False

    def is_heard(self) -> None:
        self.heard_of_late = True


class Clock(selectors.DefaultSelector):
    """Time passes where it is waited for."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nothing will happen any more"
            self.now += timeout
        return found


class Deaf(services.Unit):
    """Nobody hears until `minutes` have passed, by a clock of the unit's own."""

    def __init__(self, path: Path) -> None:
        self.clock = clock = Clock()
        super().__init__(path, 60_000_000, loop=Loop(clock, lambda: clock.now))
        self._path = self.manager.address
        self.manager.close()
        os.unlink(self._path)

    def after(self, minutes: float) -> None:
        until = self.clock.now + 60 * minutes
        overdue = self.loop.call_at(until, lambda: None)
        while self.clock.now < until:
            self.loop.turn()
        overdue.cancel()
        self.manager = NotifySocket(self._path)


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
    new = NewMaster()
    unit.speaker.pass_to(17, new)
    unit.speaker.stopping()
    assert unit.heard("MAINPID=17") == 1
    assert unit.heard("STOPPING=1") == 0
    assert not new.heard_of_late and not unit.speaker.main.is_owed


def test_what_is_sent_to_the_main_process_may_come_here_until_systemd_has_heard_of_another(unit: Unit) -> None:
    unit.speaker.pass_to(17, NewMaster())
    assert unit.speaker.main.may_be_ours
    assert unit.heard("BARRIER=1") == 1  # what reads the message without its descriptor closes that
    unit.turn_until(lambda: not unit.speaker.main.may_be_ours)


def test_a_master_that_leaves_asks_for_time_though_nobody_can_answer(unit: Unit) -> None:
    unit.healthy = False
    unit.service.advance(MasterEvent.SERVES)
    unit.service.advance(MasterEvent.STOP)
    unit.speaker.report()
    unit.turn_until(lambda: unit.heard("EXTEND_TIMEOUT_USEC") >= 2)


@pytest.fixture
def deaf(short_path: Path) -> Iterator[Deaf]:
    with closing(Deaf(short_path)) as unit:
        yield unit


def test_that_it_is_ready_is_said_whenever_systemd_hears_again(deaf: Deaf) -> None:
    """The job waits for as long as there are signs of life: those are not given up, so READY=1 must not be."""
    deaf.speaker.ready()
    deaf.after(minutes=10)
    deaf.turn_until(lambda: any("READY=1" in message for message in deaf.messages()))


def test_a_sign_of_life_that_is_heard_brings_what_was_not(deaf: Deaf) -> None:
    deaf.speaker.ready()
    deaf.after(minutes=10)
    deaf.speaker.ping()
    assert any("READY=1" in message for message in deaf.messages())


def test_the_new_main_process_is_named_whenever_systemd_hears_again(deaf: Deaf) -> None:
    new = NewMaster()
    deaf.speaker.pass_to(17, new)
    deaf.after(minutes=10)
    assert deaf.speaker.main.is_owed and not new.heard_of_late
    deaf.turn_until(lambda: any("MAINPID=17" in message for message in deaf.messages()))
    assert new.heard_of_late and not deaf.speaker.main.is_owed


def test_nobody_is_named_who_ends_together_with_this_master(deaf: Deaf) -> None:
    deaf.speaker.pass_to(17, NewMaster())
    deaf.speaker.stays_main()
    deaf.after(minutes=1)
    deaf.turn_until(lambda: any("STOPPING=1" in message for message in deaf.messages()))
    assert not any("MAINPID" in message for message in deaf.messages())
