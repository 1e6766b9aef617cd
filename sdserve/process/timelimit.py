"""A limit for work that runs in the main thread and waits as it likes: SIGALRM interrupts it (setitimer(2)).

No context manager: the alarm may come while one is being left, and what it set would stay. Python runs handlers of
signals at calls and jumps backwards, so none runs between the end of the work and the line that disarms ours.
"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from sdserve.errors import Interruption

T = TypeVar("T")
AGAIN = 1.0  # seconds until the next attempt, where the first was swallowed: an exception in __del__ is, for one


class TimeIsUp(Interruption):
    """The limit has passed. No Exception, since loops that try again catch those."""


def limited(seconds: float, work: Callable[[], T]) -> T:
    """Does `work`, in which TimeIsUp is raised after `seconds` (0: never). Timers do not reach forked children."""
    if not seconds:
        return work()
    armed = False

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if armed:
            raise TimeIsUp

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        return work()
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
