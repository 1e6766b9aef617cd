"""How much a flood may write into the log: some lines in each while, and the number of the others with the next one.

What a client can bring about is logged a few times, as the kernel does it (printk_ratelimited). A journal full of bad
requests has no room for what matters, and journald drops the lines of a loud service whatever they say. The access
log, where one is kept, has every request.
"""

from collections.abc import Callable
from typing import Any

BURST = 20  # lines
INTERVAL = 10.0  # seconds


class RateLimit:
    """Lets `burst` lines through in `interval` seconds, which begin with the first of them. `now` is monotonic, and of
    the same clock each time."""

    __slots__ = ("_burst", "_interval", "_left", "_until", "kept_back")

    def __init__(self, burst: int = BURST, interval: float = INTERVAL) -> None:
        self._burst = burst
        self._interval = interval
        self._left = 0
        self._until = 0.0
        self.kept_back = 0  # lines that were not said

    def allows(self, now: float) -> bool:
        """Whether one more line may be said; one that may not is counted.

        Threads that ask at the same moment may get one too many, and no more than that.
        """
        if now >= self._until:
            self._left = self._burst
            self._until = now + self._interval
        if self._left <= 0:
            self.kept_back += 1
            return False
        self._left -= 1
        return True

    def say(self, now: float, say: Callable[..., None], what: str, *args: Any) -> None:
        """Has `say`, a method of the log, write a line if it may, and how many were kept back before it."""
        if not self.allows(now):
            return
        if self.kept_back:
            say("%d more of the kind that follows were not logged", self.kept_back)
            self.kept_back = 0
        say(what, *args)
