"""What server hooks read of the arbiter, by the names that it has in gunicorn.

Views of the real state, which lives elsewhere under names of its own; hooks that only read go on working. The one
attribute that hooks may set is `num_workers`.
"""

import signal
import sys
from typing import TYPE_CHECKING, Any

from sdserve.arbiter.pidfile_claim import PidfileClaim
from sdserve.arbiter.pool import Pool
from sdserve.arbiter.service import Service
from sdserve.arbiter.signals import QUEUED, SignalQueue
from sdserve.errors import AppImportError, BootError
from sdserve.log import Logger
from sdserve.process.listeners import Listener
from sdserve.process.pidfile import Pidfile
from sdserve.workers.base import Worker

if TYPE_CHECKING:
    from sdserve.config import Config


class Server:
    """The attributes; the methods are the arbiter's verbs."""

    WORKER_BOOT_ERROR = BootError.exit_code
    APP_LOAD_ERROR = AppImportError.exit_code
    SIGNALS = [getattr(signal, f"SIG{name}") for name in QUEUED if name not in ("CHLD", "RTMIN")]  # noqa: RUF012 - as in gunicorn
    SIG_NAMES = {each: each.name.removeprefix("SIG").lower() for each in signal.Signals}  # noqa: RUF012
    service: Service
    signals: SignalQueue
    claim: PidfileClaim
    pool: Pool

    @property
    def cfg(self) -> "Config":
        return self.service.cfg

    @property
    def log(self) -> Logger:
        return self.service.log

    @property
    def pid(self) -> int:
        return self.service.pid

    @property
    def systemd(self) -> bool:
        """Whether the listeners come from socket activation."""
        return self.service.systemd

    @property
    def num_workers(self) -> int:
        """The wanted number of workers; setting it tells `nworkers_changed`."""
        return self.service.goal.size

    @num_workers.setter
    def num_workers(self, value: int) -> None:
        self.pool.resize(value)

    @property
    def worker_age(self) -> int:
        return self.service.worker_age

    @property
    def WORKERS(self) -> dict[int, Worker]:
        """The workers that have not been reaped, by pid."""
        return {handle.pid: handle.worker for handle in self.service.children}

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
        return self.service.listeners

    @property
    def master_name(self) -> str:
        return self.service.master_name

    @property
    def master_pid(self) -> int:
        """The old master's pid while this one succeeds it, else 0."""
        return self.service.master_pid

    @property
    def reexec_pid(self) -> int:
        """The new master's pid while an upgrade is under way, else 0."""
        return self.service.reexec_pid

    @property
    def proc_name(self) -> str:
        return self.service.proc_name

    @property
    def app(self) -> Any:
        return self.service.generation.app if self.service.generation else None

    @property
    def worker_class(self) -> type[Worker] | None:
        return self.service.generation.worker_class if self.service.generation else None

    @property
    def address(self) -> list[Any]:
        return list(self.cfg.address)

    @property
    def timeout(self) -> float:
        return float(self.cfg.timeout)
