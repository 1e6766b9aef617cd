"""Runs in the event loop what comes before and after service, one piece at a time, so that a signal can end it.

An exception that a signal handler raises may hit the event loop's own code. What it breaks off there is not made good:
uvloop's loop then counts as running for ever, and the application's shutdown cannot be run any more. So a signal has
the loop end what runs, in its turn, as asyncio.Runner has it. Only if the loop does not turn, because the application
blocks it, an exception is raised in what blocks.
"""

import signal
from asyncio import AbstractEventLoop, Task
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

from sdserve.errors import Leave

T = TypeVar("T")
PATIENCE = 0.1  # seconds in which a loop turns that nobody blocks: who does not serve yet has little more to leave
AGAIN = 0.5  # seconds until the next attempt, where the first was swallowed


class Runner:
    """Runs coroutines in `loop`, which nobody else runs meanwhile; in the main thread, whose signal handlers call
    `interrupt`."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._task: Task[Any] | None = None  # what runs
        self._interrupted = False
        self._before: Any = None  # the handler of SIGALRM that ours has replaced

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """What `coro` returns or raises. Raises Leave if it is interrupted: it is cancelled then, and not waited for.

        Whoever else stops the loop has no say.
        """
        task = self._loop.create_task(coro)
        task.add_done_callback(self._stop)
        self._task = task
        try:
            while not (self._interrupted or task.done()):
                self._loop.run_forever()
        finally:  # handlers run at calls and jumps backwards: none does before the next line
            self._task = None
            if self._interrupted:
                self._disarm()
                self._interrupted = False
                if not task.cancel() and not task.cancelled():
                    task.exception()  # nobody asks what became of it
                raise Leave(0)
        return task.result()

    def interrupt(self) -> bool:
        """Ends what runs, from within a signal handler; false if nothing does. Saying it again changes nothing."""
        task = self._task
        if task is None:
            return False
        if not self._interrupted:
            self._before = signal.signal(signal.SIGALRM, self._insist)
            self._interrupted = True
            signal.setitimer(signal.ITIMER_REAL, PATIENCE, AGAIN)
            self._loop.call_soon_threadsafe(self._end, task)
        return True

    def _stop(self, task: Task[Any]) -> None:
        self._loop.stop()

    def _end(self, task: Task[Any]) -> None:
        """The loop turns."""
        if task is self._task:
            signal.setitimer(signal.ITIMER_REAL, 0)
            task.cancel()
            self._loop.stop()

    def _insist(self, signum: int, frame: FrameType | None) -> None:
        """The loop does not turn."""
        if self._task is not None:
            raise Leave(0)

    def _disarm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before or signal.SIG_DFL)
