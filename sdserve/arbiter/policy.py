"""What every policy of a master has in hand: the state that they share, the machine, and the parts that several move.

pool.py is one of those parts. What else a policy needs, it is given by name; none of them knows the arbiter.
"""

from collections.abc import Callable

from sdserve.arbiter.addresses import Addresses
from sdserve.arbiter.commands import Commands
from sdserve.arbiter.control import Control
from sdserve.arbiter.hooks import Hooks
from sdserve.arbiter.host import Host
from sdserve.arbiter.observation import Observation
from sdserve.arbiter.pidfile_claim import PidfileClaim
from sdserve.arbiter.pool import Pool
from sdserve.arbiter.service import Service
from sdserve.arbiter.service_manager import ServiceManager
from sdserve.arbiter.steps import Steps

Parts = tuple[
    Service, Host, Addresses, Pool, ServiceManager, PidfileClaim, Control, Commands, Hooks, Steps, Observation
]


class Policy:
    """Base of Reload, OldMaster, NewMaster and Shutdown."""

    def __init__(self, parts: Parts) -> None:
        self._service, self._host, self._addresses, self._pool, self._manager, self._claim = parts[:6]
        self._control, self._commands, self._hooks, self._steps, self._observation = parts[6:]

    def _take_all(self, what: str, *steps: Callable[[], object]) -> None:
        """Takes each step, whatever became of the others; one that fails is tried once more."""
        for step in steps:
            for attempt in ("is tried once more", "is left out, the others are taken"):
                try:
                    step()
                    break
                except Exception:
                    self._service.log.exception("One step of a %s failed; it %s", what, attempt)
