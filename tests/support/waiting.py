"""The one place that polls.

Most waits of the tests hang on an event: a pidfd, a notify datagram, a line of a log. What systemd shows by `systemctl
show` and the kernel by /proc has no event that a test could hang on without a bus, so it is asked again and again, in
short steps and for a bounded time, here and nowhere else.
"""

import select
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

PATIENCE = 25.0
"""Seconds of a wait that nobody limits: far more than a slow machine needs for what happens at once, and less than the
server's own limits, timeout and graceful_timeout, after which things happen that should have happened before."""

STEP = 0.02
"""Seconds between two looks, at least: short beside everything that is waited for. A look that takes longer, as one by
systemctl(1) does on a busy machine, is followed by as long a pause: half of the time belongs to who is waited for."""


def eventually(look: Callable[[], T | None], what: str = "", timeout: float = PATIENCE) -> T:
    """Return the first true result of `look`; AssertionError after `timeout` seconds, with the last result and `what`.

    An AssertionError raised by `look` counts as "not yet", and so does a process that ended while it was looked at.
    """
    deadline = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        problem: object
        try:
            result = look()
        except (AssertionError, ProcessLookupError) as e:
            problem = e
        else:
            if result:
                return result
            problem = result
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or look}; last seen: {problem}")
        time.sleep(min(max(STEP, now - began), 1.0))


class HasFileno(Protocol):
    def fileno(self) -> int: ...


def readable(*files: HasFileno | int, timeout: float | None = None) -> set[int]:
    """The descriptors that are readable, after `timeout` seconds at the latest; any numbers, unlike select(2)."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)}
