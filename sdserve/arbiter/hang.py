"""Noticing hung workers without a heartbeat.

A worker that becomes busy says so once (`Cell.begin`); from then on the master has a deadline for it, at the moment
when its oldest request would exceed `timeout`. At that moment the worker is idle again (the master looks away until the
next message), busy with a younger request (a later deadline), or hung.

An idle worker can hang, too, where something of the application runs without a request: a task blocks the event loop,
or C code in a thread keeps the interpreter to itself. Such a worker is asked, once in each time-out, and counts the
question when it polls. One that does not until the next question hangs. Others cannot hang at rest, and are let sleep.
"""

from collections.abc import Callable

from sdserve.arbiter.lifecycle import Phase
from sdserve.arbiter.loop import NO_DEADLINE, Loop
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.immutable import Immutable
from sdserve.process.counters import POLLS
from sdserve.process.scoreboard import WATCHED
from sdserve.workers.words import POLL

# A worker enforces `timeout` on its own requests where it can: it knows which one it is. The master waits this much
# longer, for the workers that cannot.
GRACE = 0.25  # seconds


class HangWatch(Immutable):
    """Calls `on_hang(handle, seconds)` for a worker whose oldest request has been in progress for too long, or that has
    not polled for so long."""

    loop: Loop
    on_hang: Callable[[WorkerHandle, float], None]

    def serves(self, handle: WorkerHandle) -> None:
        """The worker has booted: the application has begun what it does by itself."""
        if handle.worker.cfg.timeout and handle.look.cancelled:
            handle.look = self.loop.call_at(self._next_look(handle), lambda: self._attend(handle))

    def busy(self, handle: WorkerHandle) -> None:
        """The worker said that it is busy; or its deadline is here; or it will not say so any more."""
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
        """Looks away from a worker that is idle, until it says that it is busy; whether it is idle.

        One that is mute is looked at so often that no request of it is ever too old unseen.
        """
        if not handle.cell.busy_since and handle.mute:
            handle.hang.cancel()
            if handle.worker.cfg.timeout:
                handle.hang = self.loop.call_at(self._next_look(handle), lambda: self.busy(handle))
            return True
        if not handle.cell.busy_since:
            handle.cell.set_word(WATCHED, 0)
            if not handle.cell.busy_since:
                handle.hang.cancel()
                if handle.look.cancelled:
                    self._attend(handle)
                return True
            handle.cell.set_word(WATCHED, 1)  # it became busy before it could see that nobody watches
        return False

    def _next_look(self, handle: WorkerHandle) -> float:
        return self.loop.now() + handle.worker.cfg.timeout + GRACE

    def _attend(self, handle: WorkerHandle) -> None:
        """Asks an idle worker that might hang, if its mark does not tell; looks at it in `timeout` seconds."""
        handle.look = NO_DEADLINE
        watches = handle.worker.cfg.timeout and handle.phase is Phase.SERVING and not handle.cell.busy_since
        polls = handle.worker.counters.get(POLLS)
        if watches and polls and handle.can_hang_at_rest():
            asked = handle.tell(POLL) and not handle.stopped
            due = self._next_look(handle)
            handle.look = self.loop.call_at(due, lambda: self._look(handle, polls if asked else 0, due))

    def _look(self, handle: WorkerHandle, polls: int, due: float) -> None:
        """Whether the worker has counted the question since it had counted `polls`; 0: it was not asked.

        A master that comes late itself has stood still, with the whole machine perhaps, and asks again.
        """
        silent = polls and polls == handle.worker.counters.get(POLLS)
        idle = handle.phase is Phase.SERVING and not handle.cell.busy_since and not handle.stopped
        if silent and idle and self.loop.now() - due < GRACE:
            self.on_hang(handle, handle.worker.cfg.timeout + GRACE)
        else:
            self._attend(handle)
