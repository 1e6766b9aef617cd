"""Whoever asks for metrics where no observer can be forked: how often that is tried, and how often the log says so."""

import errno
import os
import re
import selectors
import socket
from pathlib import Path
from typing import Any

import pytest

from sdserve.arbiter.addresses import Addresses
from sdserve.arbiter.host import Host
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.observation import LINES, MINUTE, Observation
from sdserve.arbiter.service import Service
from sdserve.process.listeners import METRICS, Listener
from tests.unit.arbiter.services import service


class Leaps(selectors.DefaultSelector):
    """Waits for nothing: the clock leaps to the next deadline instead."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nothing is due, and nobody asks"
            self.now += max(0.001, timeout)
        return found


class Full(Host):
    """A machine without room for a process."""

    tries = 0

    def fork_observer(self, service: Service, addresses: Addresses, lifeline: int) -> Any:
        self.tries += 1
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_without_room_for_an_observer_it_is_tried_each_second_and_said_a_few_times_a_minute(
    short_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clock, host = Leaps(), Full()
    loop = Loop(clock, lambda: clock.now)
    asked = service(loop)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(short_path / "metrics"))
        listening.listen()
        client.connect(str(short_path / "metrics"))
        listener = Listener(listening, str(short_path / "metrics"), activated=True)
        listener.name = METRICS
        asked.observed = [listener]
        observation = Observation(asked, host, Addresses(asked))
        observation.keep_open()
        while clock.now < 1000.0 + MINUTE:
            loop.turn()
        first_minute = host.tries
        while clock.now < 1000.0 + 2 * MINUTE:
            loop.turn()
        observation.close()
    loop.close()
    assert host.tries == pytest.approx(120, abs=6)
    said = capfd.readouterr().err
    assert said.count("The observer of metrics and health cannot begin") == 2 * LINES
    assert re.findall(r"(\d+) more of the kind that follows were not logged", said) == [str(first_minute - LINES)]
