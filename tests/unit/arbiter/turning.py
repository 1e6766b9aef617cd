"""What unit tests of things that live on a loop share: turning it until something has happened."""

import time
from collections.abc import Callable

from sdserve.arbiter.loop import Loop

PATIENCE = 15  # seconds


class Turning:
    """Something with a loop of its own."""

    loop: Loop

    def turn_until(self, done: Callable[[], object]) -> None:
        """Turns the loop until `done`; fails, rather than sleep for ever, after a while."""
        late = time.monotonic() + PATIENCE
        overdue = self.loop.call_at(late, lambda: None)
        while not done():
            assert time.monotonic() < late, "nothing came of it"
            self.loop.turn()
        overdue.cancel()
