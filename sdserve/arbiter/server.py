"""What server hooks read of the arbiter, by the names that it has in gunicorn.

Views of the real state, which lives elsewhere under names of its own; hooks that only read go on working. The one
attribute that hooks may set is `num_workers`.
"""

import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdserve.arbiter.decide import Goal
from sdserve.arbiter.generation import Generation
from sdserve.arbiter.signals import QUEUED, SignalQueue
from sdserve.errors import AppImportError, BootError
from sdserve.process.listeners import Listener
from sdserve.process.pidfile import Pidfile
from sdserve.workers.base import Worker

if TYPE_CHECKING:
    from sdserve.arbiter.children import Children
    from sdserve.arbiter.pidfile_claim import PidfileClaim
    from sdserve.arbiter.upgrade import Upgrade
    from sdserve.config import Config
    from sdserve.log import Logger


class Server:
    """The attributes `cfg`, `log`, `pid`, `worker_age`, `systemd`, and the properties below.

    systemd: whether the listeners come from socket activation.
    """

    WORKER_BOOT_ERROR = BootError.exit_code
    APP_LOAD_ERROR = AppImportError.exit_code
    SIGNALS = [getattr(signal, f"SIG{name}") for name in QUEUED if name not in ("CHLD", "RTMIN")]  # noqa: RUF012 - as in gunicorn
    SIG_NAMES = {each: each.name.removeprefix("SIG").lower() for each in signal.Signals}  # noqa: RUF012
    signals: SignalQueue

    def __init__(self, cfg: "Config", log: "Logger", pid: int) -> None:
        self.cfg = cfg
        self.log = log
        self.pid = pid
        self.systemd = False
        self.worker_age = 0
        self.goal = Goal(cfg.workers)
        self.generation: Generation | None = None
        self.claim: PidfileClaim
        self.children: Children
        self.upgrade: Upgrade

    def tolerant_hook(self, name: str, *args: object) -> None:
        raise NotImplementedError

    @property
    def num_workers(self) -> int:
        """The wanted number of workers; setting it tells `nworkers_changed`."""
        return self.goal.size

    @num_workers.setter
    def num_workers(self, value: int) -> None:
        old, self.goal = self.goal.size, replace(self.goal, size=value)
        self.tolerant_hook("nworkers_changed", value, old)

    @property
    def WORKERS(self) -> dict[int, Worker]:
        """The workers that have not been reaped, by pid."""
        return {handle.pid: handle.worker for handle in self.children}

    @property
    def START_CTX(self) -> dict[object, Any]:
        """What an upgrade executes: the program at 0, its `args`, in `cwd`. A copy: changes have no effect."""
        return {0: sys.orig_argv[0], "args": list(sys.orig_argv), "cwd": self.cfg.directory}

    @property
    def SIG_QUEUE(self) -> SignalQueue:
        return self.signals

    @property
    def pidfile(self) -> Pidfile | None:
        return self.claim.pidfile

    @property
    def LISTENERS(self) -> list[Listener]:
        return self.generation.listeners if self.generation else []

    @property
    def master_name(self) -> str:
        """ "Master", or "Master.2" for a new master whose old one still lives."""
        return "Master.2" if self.master_pid else "Master"

    @property
    def master_pid(self) -> int:
        """The old master's pid while this one succeeds it, else 0."""
        return self.upgrade.parent_pid

    @property
    def reexec_pid(self) -> int:
        """The new master's pid while an upgrade is under way, else 0."""
        return self.upgrade.child_pid

    @property
    def proc_name(self) -> str:
        return f"{self.cfg.proc_name}.2" if self.master_pid else self.cfg.proc_name

    @property
    def app(self) -> Any:
        return self.generation.app if self.generation else None

    @property
    def worker_class(self) -> type[Worker] | None:
        return self.generation.worker_class if self.generation else None

    @property
    def address(self) -> list[Any]:
        return list(self.cfg.address)

    @property
    def timeout(self) -> float:
        return float(self.cfg.timeout)
