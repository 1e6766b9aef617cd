"""When clients are due, free of clocks and sockets: deadlines as numbers, and how slowly a body may come.

There are no timers. Each client has a deadline; the earliest is known, and all are looked at when it is due, not
before, so an idle worker sleeps without end. All times are monotonic seconds.
"""

from collections.abc import Iterable
from typing import Protocol

from sdserve.http.limits import Times

NEVER = float("inf")
SWEEP = 0.25  # seconds between two looks at all deadlines, at least


def after(now: float, seconds: float) -> float:
    """The deadline of what must be done in `seconds`; 0: never mind."""
    return now + seconds if seconds else NEVER


class Due(Protocol):
    """What has a deadline."""

    deadline: float


class Deadlines:
    """A look at all deadlines is due at `sweep_at`."""

    sweep_at = NEVER

    def look_by(self, at: float) -> None:
        """Something may be due at `at`."""
        if at < self.sweep_at:
            self.sweep_at = at

    def set_deadline(self, client: Due, now: float, seconds: float) -> None:
        """What the client does now must be done in `seconds`; 0: never mind."""
        client.deadline = after(now, seconds)
        self.look_by(client.deadline)

    def looked(self, clients: Iterable[Due], now: float) -> None:
        """The next look is when the earliest is due, but in `SWEEP` seconds at least."""
        self.sweep_at = max(min((client.deadline for client in clients), default=NEVER), now + SWEEP)


class Arrival:
    """How a body comes in, and when it will be too slow.

    On average it must bring `times.body_rate`, once its grace is over. What came faster is remembered for as long as
    it may bring nothing at all, `times.body_idle`, and no longer: a fast beginning does not buy a day of silence.
    """

    __slots__ = ("_last", "_paid", "_times", "began")

    def __init__(self, times: Times, began: float) -> None:
        self._times = times
        self.began = self._last = began
        self._paid = 0.0  # seconds after `began` that the bytes so far are enough for

    def received(self, size: int, now: float) -> None:
        times = self._times
        self._last = now
        if times.body_rate:
            self._paid = min(
                self._paid + size / times.body_rate, now - self.began + max(times.body_idle, times.body_grace)
            )

    def excuse(self, seconds: float) -> None:
        """For so long nobody wanted to read."""
        self.began += seconds
        self._last += seconds

    def hurry(self, times: Times) -> None:
        """Less patience from now on."""
        self._times = times

    def due(self) -> float:
        """When it is too slow unless more comes."""
        times = self._times
        slow = self.began + max(times.body_grace, self._paid) if times.body_rate else NEVER
        return min(slow, self._last + times.body_idle) if times.body_idle else slow
