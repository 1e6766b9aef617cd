"""What server hooks read of the arbiter, by the names that it has in gunicorn.

Views of the real state, which lives elsewhere under names of its own; hooks that only read go on working. The one
attribute that hooks may set is `num_workers`.
"""

import signal
import sys
from operator import attrgetter
from typing import Any

from sdserve.arbiter.pidfile_claim import PidfileClaim
from sdserve.arbiter.pool import Pool
from sdserve.arbiter.service import Service
from sdserve.arbiter.signals import QUEUED, SignalQueue
from sdserve.config import Config
from sdserve.errors import AppImportError, BootError
from sdserve.log import Logger
from sdserve.process.listeners import Address, Listener
from sdserve.process.pidfile import Pidfile
from sdserve.workers.application import Application
from sdserve.workers.base import Worker


def _view(path: str) -> Any:
    return property(attrgetter(path))


class Server:
    """The attributes; the methods are the arbiter's verbs."""

    WORKER_BOOT_ERROR = BootError.exit_code
    APP_LOAD_ERROR = AppImportError.exit_code
    SIGNALS = list(QUEUED[:-2])  # noqa: RUF012 - as in gunicorn
    SIG_NAMES = {each: each.name.removeprefix("SIG").lower() for each in signal.Signals}  # noqa: RUF012
    service: Service
    signals: SignalQueue
    claim: PidfileClaim
    pool: Pool

    log: Logger = _view("service.log")
    pid: int = _view("service.pid")
    systemd: bool = _view("service.systemd")  # whether the listeners come from socket activation
    worker_age: int = _view("service.worker_age")
    master_name: str = _view("service.master_name")
    master_pid: int = _view("service.master_pid")  # the old master's while this one succeeds it, else 0
    reexec_pid: int = _view("service.reexec_pid")  # the new master's while an upgrade is under way, else 0
    proc_name: str = _view("service.proc_name")
    LISTENERS: list[Listener] = _view("service.listeners")
    SIG_QUEUE: SignalQueue = _view("signals")
    pidfile: Pidfile | None = _view("claim.pidfile")
    app: Application = _view("service.generation.app")
    worker_class: type[Worker] = _view("service.generation.worker_class")
    address: list[Address] = _view("service.cfg.address")
    timeout: float = _view("service.cfg.timeout")

    @property
    def cfg(self) -> Config:
        return self.service.cfg

    @property
    def num_workers(self) -> int:
        """The wanted number of workers; setting it tells `nworkers_changed`."""
        return self.service.goal.size

    @num_workers.setter
    def num_workers(self, value: int) -> None:
        self.pool.resize(value)

    @property
    def WORKERS(self) -> dict[int, Worker]:
        """The workers that have not been reaped, by pid."""
        return {handle.pid: handle.worker for handle in self.service.children}

    @property
    def START_CTX(self) -> dict[object, Any]:
        """What an upgrade executes: the program at 0, its `args`, in `cwd`. A copy: changes have no effect."""
        return {0: sys.orig_argv[0], "args": list(sys.orig_argv), "cwd": self.cfg.directory}
