"""The old master's side of an upgrade: what a new master said is heard, however quick its end was."""

import os
from collections.abc import Sequence
from typing import cast

from sdserve.arbiter.host import Host
from sdserve.arbiter.lifecycle import Upgrade
from sdserve.arbiter.reexec import Reexec
from sdserve.arbiter.successor import Successor
from sdserve.process.adoption import AdoptionQueue
from sdserve.process.handover import Handover
from sdserve.process.listeners import Listener
from tests.unit.arbiter.services import service


class Hasty(Host):
    """A new master that fails, and has been reaped before the old one looks for it."""

    def execute(self, reexec: Reexec, passed: Sequence[Listener], handover: Handover) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                handover.send("failed", reason="not on Fridays")
            finally:
                os._exit(127)
        os.waitpid(pid, 0)
        return pid


def test_the_reason_of_one_that_ended_at_once_is_told() -> None:
    lost: list[str] = []
    upgraded = service()
    successor = Successor(upgraded, Hasty(), lambda: None, lambda pid, reason: lost.append(reason))
    queue = AdoptionQueue.new()
    try:
        successor.start([], queue, cast(Reexec, None), timeout=None)
    finally:
        for fd in queue.fds():
            os.close(fd)
    assert lost == ["not on Fridays"]
    assert upgraded.upgrade is Upgrade.NONE
