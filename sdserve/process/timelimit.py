"""A limit for code that runs in the main thread and waits as it likes: SIGALRM interrupts it (setitimer(2))."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 1.0  # seconds until the next attempt, where the first was swallowed: an exception in __del__ is, for one


class TimeIsUp(BaseException):
    """The limit has passed. No Exception, since loops that try again catch those."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeIsUp inside of the block `seconds` after its begin (0: never). Timers do not reach forked children."""
    if not seconds:
        yield
        return

    running = True

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if running:
            raise TimeIsUp

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
