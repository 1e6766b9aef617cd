"""What becomes of a loop that fails where no connection is to blame: how long it pauses, and when it is replaced.

A poll that failed and then succeeds has cost a pause, nothing else. What goes on failing now and then is a worker that
others should stand in for: its replacement is asked for, and it serves on until that serves. Only a loop that cannot
poll at all, however often it tries, ends by itself.
"""

from sdserve.immutable import Immutable

FAULTS = 8  # failures, none of them RECOVERED after the one before, after which the worker asks for its replacement
LAST = 16  # failures without one poll that succeeded: nobody is served, and nobody has replaced it
PAUSE, LONGEST, RECOVERED = 0.02, 1.0, 5.0  # seconds


class Verdict(Immutable):
    """What to do after a failure: wait for `pause` seconds, ask for a replacement, or give up."""

    pause: float
    replaced: bool
    over: bool


class Guard:
    """Counts the failures of one loop. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._many = 0  # failures that came soon after each other, whatever succeeded in between
        self._row = 0  # failures since the last poll that succeeded
        self._until = 0.0  # when the pause after the last failure was over

    def failed(self, now: float, polled: float) -> Verdict:
        """The loop has failed; `polled` is when it last polled with success."""
        self._many = self._many + 1 if now - self._until < RECOVERED else 1
        self._row = self._row + 1 if polled < self._until else 1
        pause = min(LONGEST, PAUSE * 2**self._row)
        self._until = now + pause
        return Verdict(pause, replaced=self._many >= FAULTS, over=self._row > LAST)
