"""systemd's watchdog over the main process, as service.c has it: what moves its deadline, and whom it ends.

It must not bite a master whose loop turns and whose workers answer, and it must notice when nobody can answer.
"""

import signal
from typing import TYPE_CHECKING

from sdserve.arbiter.lifecycle import LEAVING, Master

if TYPE_CHECKING:
    from tests.simulation.processes import MasterProcess
    from tests.simulation.world import World

ROUNDING = 1e-6
UNNOTICED = 2.0  # limits in which nobody answered, the last sign of life being from just before


class WatchdogTimer:
    """Armed by READY=1, until STOPPING=1. `limit` is WatchdogSec=, 0: there is none."""

    def __init__(self, world: "World", limit: float) -> None:
        self._world = world
        self.limit = limit
        self.deadline: float | None = None
        self._well_since: float | None = None
        self._ill_since: float | None = None
        self._deaf = False  # systemd has not heard that more time was wanted

    def misses(self, message: str) -> None:
        """Something was said that systemd could not hear."""
        self._deaf |= message.startswith("EXTEND_TIMEOUT_USEC")

    def hears(self, fields: dict[str, str]) -> None:
        now, self._deaf = self._world.now, False
        if not self.limit or "STOPPING" in fields:
            self.deadline = None
        elif self.deadline is None:
            self.deadline = now + self.limit if "READY" in fields else None
        elif "EXTEND_TIMEOUT_USEC" in fields:  # for the job, and for the watchdog
            self.deadline = max(self.deadline, now + int(fields["EXTEND_TIMEOUT_USEC"]) / 1e6)
        elif "WATCHDOG_USEC" in fields:
            self.deadline = now + int(fields["WATCHDOG_USEC"]) / 1e6
        elif "WATCHDOG" in fields:
            self.deadline = now + self.limit

    def stood_still(self, seconds: float) -> None:
        """The machine did, and systemd with it."""
        if self.deadline is not None:
            self.deadline += seconds
        self._well_since = self._ill_since = None

    def look(self, main: "MasterProcess | None", *, inside: bool = False) -> None:
        """Time has passed; `inside` of a turn of the main process's loop."""
        now = self._world.now
        if main is None or not main.alive or self.deadline is None:
            self.deadline = None
            self._well_since = self._ill_since = None
            return
        healthy = well(main)
        if inside or healthy:
            self._well_since, self._ill_since = (self._well_since or now) if healthy else None, None
        else:
            self._well_since, self._ill_since = None, self._ill_since or now
        if now > self.deadline + ROUNDING and not (inside and not healthy):
            if not self._deaf and self._well_since is not None and now - self._well_since > self.limit / 4:
                self._world.breaks("watchdog", f"it bites {main}, whose workers answer")
            self._world.tell(f"the watchdog bites {main}")
            self.deadline = None
            main.end(signal.SIGABRT)
        elif self._ill_since is not None and now - self._ill_since > UNNOTICED * self.limit:
            self._world.breaks("watchdog", f"nobody of {main} has answered for {now - self._ill_since:g} s")


def well(main: "MasterProcess") -> bool:
    """Its loop turns, and somebody answers, or nobody has to, or will after a gap that was wanted."""
    arbiter = main.arbiter
    if arbiter is None or main.stopped:
        return False
    goal = arbiter.service.goal
    gap = goal.exclusive and any((each.alive and not each.booted) or each.told_to_end for each in main.workers)
    return goal.size == 0 or arbiter.service.state in (Master.STARTING, *LEAVING) or main.serving > 0 or gap
