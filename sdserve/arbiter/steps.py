"""Work of the master during which its loop does not turn: hooks, a configuration, the import of an application.

Each such step is bounded by `boot_timeout`. systemd is asked for as much time before it, or its watchdog would end the
service over a long import. A step that takes longer is interrupted (SIGALRM, setitimer(2)) and fails like any other
error; where C code does not return to the interpreter, the watchdog ends the service a little later.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sdserve.arbiter.host import Host
from sdserve.arbiter.service_manager import ServiceManager
from sdserve.config.hooks import no_hook
from sdserve.errors import BootError
from sdserve.gateway.blame import raised
from sdserve.process import foreign
from sdserve.process.forked import Tell
from sdserve.process.timelimit import TimeIsUp

T = TypeVar("T")
UNLIMITED = 600.0  # seconds that systemd is asked for where boot_timeout has no limit
GRACE = 5.0  # seconds that systemd waits longer than we do


class Steps:
    """Bounds the steps of one master; a step inside of another belongs to it. `tell` is the log's."""

    def __init__(self, host: Host, manager: ServiceManager, tell: Tell) -> None:
        self._host = host
        self._manager = manager
        self._tell = tell
        self._inside = False

    def step(self, what: str, limit: float, work: Callable[[], T]) -> T:
        """Does `work` in `limit` seconds at most (0: no limit). Raises BootError when it takes longer.

        What `work` raises is an Exception, whatever it was: it is foreign code.
        """
        if self._inside:
            return foreign.call(self._tell, work)
        self._inside = True
        self._manager.begin_step(limit + GRACE if limit else UNLIMITED)
        try:
            return self._host.limited(limit, partial(foreign.call, self._tell, work))
        except TimeIsUp as late:
            where = raised(late)
            at = f": it was at {where}" if where else ""
            raise BootError(f"{what} did not end within {limit:g} seconds (boot_timeout){at}") from None
        finally:
            self._inside = False
            self._manager.end_step()

    def hook(self, name: str, hook: Callable[..., object], limit: float, *args: object) -> None:
        """Calls a hook. What it raises is the caller's."""
        if hook is not no_hook:
            self.step(f"the hook {name}", limit, partial(hook, *args))
