"""The service watchdog: how often systemd expects a sign of life (sd_watchdog_enabled(3))."""

import os
from collections.abc import MutableMapping


class Watchdog:
    """`interval` is the seconds between two pings, half of what systemd allows; None when nobody waits for them."""

    def __init__(self, usec: int | None) -> None:
        self._usec = usec

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> "Watchdog":
        """Reads WATCHDOG_USEC and WATCHDOG_PID and takes them out of `environ`."""
        usec = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
            return cls(None)
        return cls(int(usec))

    @property
    def limit(self) -> float | None:
        """The seconds after which systemd ends a service that gives no sign of life; None: it does not."""
        return None if self._usec is None else self._usec / 1e6

    @property
    def interval(self) -> float | None:
        return None if self._usec is None else self._usec / 2e6

    def variables(self, pid: int) -> dict[str, str]:
        """The environment that arms the watchdog in a successor: without WATCHDOG_PID it would never ping."""
        return {} if self._usec is None else {"WATCHDOG_USEC": str(self._usec), "WATCHDOG_PID": str(pid)}
