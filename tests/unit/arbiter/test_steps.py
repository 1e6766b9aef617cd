"""Steps that keep the loop from turning: systemd waits for them, and none takes longer than it may."""

import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sdserve.arbiter.host import Host
from sdserve.arbiter.steps import Steps
from sdserve.errors import BootError
from tests.unit.arbiter import services

HANG = threading.Event()  # never set: only a signal ends the wait


class Unit(services.Unit):
    def __init__(self, path: Path) -> None:
        super().__init__(path, 2_000_000)
        self.steps = Steps(Host(), self.speaker, print)

    def heard(self) -> list[str]:
        return [f"{name}={text}" for m in self.messages() for name, text in m.fields.items() if "USEC" in name]


@pytest.fixture
def unit(short_path: Path) -> Iterator[Unit]:
    with closing(Unit(short_path)) as unit:
        yield unit


def test_systemd_waits_for_a_step_and_no_longer(unit: Unit) -> None:
    assert unit.steps.step("an import", 20, unit.heard) == ["EXTEND_TIMEOUT_USEC=25000000"]
    assert unit.heard()[1:] == ["WATCHDOG_USEC=2000000"]


def test_a_service_in_which_nobody_answers_gets_no_more_time(unit: Unit) -> None:
    unit.healthy = False
    unit.steps.step("an import", 20, lambda: None)
    assert unit.heard() == []


def test_a_step_that_hangs_is_interrupted_and_named(unit: Unit) -> None:
    with pytest.raises(BootError, match=r"the hook on_reload did not end within 0\.05 seconds"):
        unit.steps.hook("on_reload", HANG.wait, 0.05)


def test_a_loop_that_catches_every_exception_is_interrupted_too(unit: Unit) -> None:
    def stubborn() -> None:
        while True:
            with suppress(Exception):
                HANG.wait()

    with pytest.raises(BootError):
        unit.steps.hook("on_reload", stubborn, 0.05)


def test_a_step_inside_of_another_belongs_to_it(unit: Unit) -> None:
    unit.steps.step("a reload", 20, lambda: unit.steps.hook("on_reload", lambda: None, 5))
    assert unit.heard() == ["EXTEND_TIMEOUT_USEC=25000000", "WATCHDOG_USEC=2000000"]
