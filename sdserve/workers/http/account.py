"""What a loop has answered since it last told others, and since when it is busy.

Both are told at a rest, not at each request: that would cost more than many an answer. While a loop does not rest, the
busy mark is renewed now and then.
"""

from collections.abc import Callable

from sdserve.process.counters import CounterCell

MARK = 0.1  # seconds that the busy mark may be older than the request it is for


class Account:
    """`busy(now)` marks the process busy, `idle()` takes the mark away."""

    def __init__(self, busy: Callable[[float], None], idle: Callable[[], None], counters: CounterCell) -> None:
        self._busy = busy
        self._idle = idle
        self._counters = counters
        self.marked = False  # the process is marked busy
        self._mark_again = 0.0  # when the busy mark must be written next
        self.marked_at = 0.0
        # Since `take_count`: answers, their body bytes, and those of them that are counted already. The others were
        # quick, and took `spent` seconds together.
        self.count = self.size = self._told = 0
        self.spent = 0.0

    def turn(self, now: float) -> None:
        """The loop has polled, or the application is called."""
        if now >= self._mark_again:
            self._mark_again = now + MARK
            self.marked_at = now
            self.marked = True
            self._busy(now)

    def rest(self) -> None:
        """Nothing is under way, and the loop is about to wait: the next request marks the process busy anew."""
        self._mark_again = 0.0
        self.marked = False
        self._idle()

    def tally(self, status: str, seconds: float) -> None:
        """Counts an answer of any kind. Most are of one kind, and cost less where they are counted by `take_count`."""
        self.count += 1
        self._told += 1
        self._counters.answered(status, seconds)

    def take_count(self) -> int:
        """Answers since the last time; all that was counted can be seen by others from now on."""
        count = self.count
        if (quick := count - self._told) or self.size:
            self._counters.quick(quick, self.spent, self.size)
        self.count = self.size = self._told = 0
        self.spent = 0.0
        return count
