"""Is the peer of a WebSocket still there? When to ping it, and when to give it up: decisions, without a clock.

Whatever comes from the peer is a sign of life, so one that is busy sending is never pinged, and one whose pong waits
behind a long message is not taken for gone.
"""

from enum import IntEnum
from math import inf as NEVER

PING = b"\x89\x00"  # the frame


class Beat(IntEnum):
    WAIT = 0
    PING = 1
    GONE = 2


class Heartbeat:
    """Pings after `interval` seconds of silence, 0: never; the peer is gone `timeout` seconds after the first ping that
    nothing followed, 0: never. `heard`, monotonic seconds, is for the caller to set whenever something comes."""

    __slots__ = ("_interval", "_pinged", "_timeout", "heard")

    def __init__(self, interval: float, timeout: float, now: float) -> None:
        self._interval = interval or NEVER
        self._timeout = timeout
        self._pinged = -NEVER  # when the peer was asked first since it was heard
        self.heard = now

    def due(self) -> float:
        """When `beat` is to be asked next."""
        if self._pinged <= self.heard:
            return self.heard + self._interval
        return self._pinged + (self._timeout or self._interval)

    def beat(self, now: float) -> Beat:
        """What to do now. PING is said once: whoever is told so pings."""
        if now < self.due():
            return Beat.WAIT
        if self._pinged > self.heard and self._timeout:
            return Beat.GONE
        self._pinged = now
        return Beat.PING
