"""The service watchdog: how often systemd expects a sign of life (sd_watchdog_enabled(3))."""

import os
from collections.abc import MutableMapping

from sdserve.immutable import Immutable

OFTEN = 10  # pings within the time that systemd allows, at most


class Watchdog(Immutable):
    """What systemd expects of the main process; nothing when WATCHDOG_USEC= is not set."""

    usec: int | None

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> "Watchdog":
        """Reads WATCHDOG_USEC and WATCHDOG_PID and takes them out of `environ`."""
        usec = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        is_meant = usec.isdigit() and pid in ("", str(os.getpid()))
        return cls(int(usec) or None if is_meant else None)

    @property
    def limit(self) -> float | None:
        """The seconds after which systemd ends a service that gives no sign of life; None: it does not."""
        return None if self.usec is None else self.usec / 1e6

    def interval(self, spare: float) -> float | None:
        """Seconds between two pings, half of what systemd allows at most; None when nobody waits for them.

        At any time, `spare` seconds of what systemd allows should be left: when the main process dies nobody pings, and
        at the end of that time systemd kills the workers that it leaves behind.
        """
        limit = self.limit
        return None if limit is None else max(limit / OFTEN, min(limit / 2, limit - spare))

    def falls_short(self, spare: float) -> bool:
        """Whether systemd allows less than that."""
        return self.limit is not None and self.limit - self.limit / OFTEN < spare

    def variables(self, pid: int) -> dict[str, str]:
        """The environment that arms the watchdog in a successor: without WATCHDOG_PID it would never ping."""
        return {} if self.usec is None else {"WATCHDOG_USEC": str(self.usec), "WATCHDOG_PID": str(pid)}
