"""The old master's side of an upgrade: what a new master said is heard, however quick its end was."""

import os
import signal
from collections.abc import Sequence
from typing import cast

import pytest

from sdserve.arbiter import successor as successor_module
from sdserve.arbiter.host import Host
from sdserve.arbiter.lifecycle import Upgrade
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.reexec import Reexec
from sdserve.arbiter.successor import Successor
from sdserve.process.adoption import AdoptionQueue
from sdserve.process.handover import Handover
from sdserve.process.listeners import Listener
from sdserve.process.pidfd import PidFd
from tests.unit.arbiter.services import service
from tests.unit.arbiter.turning import Turning


class Upgrading(Turning):
    def __init__(self) -> None:
        self.loop = Loop()


class Hasty(Host):
    """A new master that fails, and has been reaped before the old one hears of it."""

    def execute(self, reexec: Reexec, passed: Sequence[Listener], handover: Handover) -> PidFd:
        pid = os.fork()
        if pid == 0:
            try:
                handover.send("failed", reason="not on Fridays")
            finally:
                os._exit(127)
        process = PidFd(pid)
        os.waitpid(pid, 0)
        return process


def test_the_reason_of_one_that_ended_at_once_is_told() -> None:
    lost: list[str] = []
    turning = Upgrading()
    upgraded = service(turning.loop)
    successor = Successor(
        upgraded, Hasty(), lambda: None, lambda restart: None, lambda pid, reason: lost.append(reason)
    )
    queue = AdoptionQueue.new()
    try:
        successor.start([], queue, None, cast(Reexec, None), timeout=None)
        turning.turn_until(lambda: bool(lost))
    finally:
        for fd in queue.fds():
            os.close(fd)
    assert lost == ["not on Fridays"]
    assert upgraded.upgrade is Upgrade.NONE


class Late(Host):
    """A new master that says that it serves when it is told to end, and stays."""

    def execute(self, reexec: Reexec, passed: Sequence[Listener], handover: Handover) -> PidFd:
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(60)  # it ends even if nobody ends it
                signal.signal(signal.SIGTERM, lambda *_: handover.send("ready", status="late"))
                os.write(told, b"x")
                while True:
                    signal.pause()
            finally:
                os._exit(127)
        os.read(ready, 1)
        os.close(ready)
        os.close(told)
        return PidFd(pid)


def test_one_that_was_dropped_takes_nothing_over_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(successor_module, "TERM_TIMEOUT", 0.2)
    lost: list[str] = []
    heard: list[str] = []
    turning, queue = Upgrading(), AdoptionQueue.new()
    upgraded = service(turning.loop)
    said = (lambda: heard.append("ready"), lambda restart: heard.append("ending"))
    successor = Successor(upgraded, Late(), *said, lambda pid, reason: lost.append(reason))
    try:
        successor.start([], queue, None, cast(Reexec, None), timeout=0)
        pid = upgraded.reexec_pid
        turning.turn_until(lambda: upgraded.upgrade is Upgrade.DROPPED)
        turning.turn_until(lambda: bool(lost))
        os.waitpid(pid, 0)
    finally:
        for fd in queue.fds():
            os.close(fd)
    assert (lost, heard, upgraded.upgrade) == (["it did not serve in time"], [], Upgrade.NONE)
