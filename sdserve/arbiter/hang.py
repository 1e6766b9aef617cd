"""Noticing hung workers without a heartbeat.

A worker that becomes busy says so once (`Cell.begin`); from then on the master has a deadline for it, at the moment
when its oldest request would exceed `timeout`. At that moment the worker is idle again (the master looks away until the
next message), busy with a younger request (a later deadline), or hung.
"""

from collections.abc import Callable

from sdserve.arbiter.lifecycle import Phase
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.immutable import Immutable
from sdserve.process.scoreboard import WATCHED

# A worker enforces `timeout` on its own requests where it can: it knows which one it is. The master waits this much
# longer, for the workers that cannot.
GRACE = 0.25  # seconds


class HangWatch(Immutable):
    """Calls `on_hang(handle, seconds)` for a worker whose oldest request has been in progress for too long."""

    loop: Loop
    on_hang: Callable[[WorkerHandle, float], None]

    def busy(self, handle: WorkerHandle) -> None:
        """The worker said that it is busy; or its deadline is here."""
        timeout = handle.worker.cfg.timeout
        if not timeout or handle.phase not in (Phase.SERVING, Phase.RETIRING):
            return
        if self.rest(handle):
            return
        now = self.loop.now()
        since = min(now, handle.cell.busy_since or now)  # 0.0: it has ended in between; later: a broken worker wrote it
        if now - since >= timeout + GRACE:
            self.on_hang(handle, now - since)
            return
        handle.hang.cancel()
        handle.hang = self.loop.call_at(since + timeout + GRACE, lambda: self.busy(handle))

    def rest(self, handle: WorkerHandle) -> bool:
        """Looks away from a worker that is idle, until it says that it is busy; whether it is idle."""
        if not handle.cell.busy_since:
            handle.cell.set_word(WATCHED, 0)
            if not handle.cell.busy_since:
                handle.hang.cancel()
                return True
            handle.cell.set_word(WATCHED, 1)  # it became busy before it could see that nobody watches
        return False
