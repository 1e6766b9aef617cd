"""One configuration in force: what a reload replaces as a whole, and a roll-back restores as a whole."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sdserve.arbiter import signals
from sdserve.arbiter.decide import Backoff, Goal
from sdserve.config import Config
from sdserve.config.paths import Place
from sdserve.log import Destinations, Logger
from sdserve.process.listeners import Listener, match, show
from sdserve.workers.application import Application
from sdserve.workers.base import Worker
from sdserve.workers.classes import resolve

if TYPE_CHECKING:
    from sdserve.access.statsd import Statsd


class Generation:
    """A configuration, its application and worker class, and the listeners that its workers serve.

    Whatever it takes to come back to it is held open: where it was (`place`), its log files (`logs`).

    statsd: what is told figures, None where nothing is.
    backoff: how long to wait after workers of this generation died; another one has a fresh start.
    unused: addresses of `bind` that nobody listens on, since systemd's sockets are served instead.
    """

    def __init__(self, number: int, cfg: Config, worker_class: type[Worker]) -> None:
        self.number = number
        self.cfg = cfg
        self.app = Application(cfg.wsgi_app or "", cfg)
        self.worker_class = worker_class
        self.place = Place()
        self.listeners: list[Listener] = []
        self.logs: Destinations | None = None
        self.statsd: Statsd | None = None
        self.backoff = Backoff()
        self.unused: list[str] = []

    @classmethod
    def of(cls, number: int, cfg: Config, log: Logger) -> "Generation":
        """Enters a configuration, whose directory the worker class may come from, and checks it. Raises ConfigError.

        A generation holds its directory open, so all that may fail comes before it is made.
        """
        cfg.enter()
        worker_class = resolve(cfg.worker_class_uri)
        worker_class.check_config(cfg, log)
        cfg.lend(worker_class=worker_class, logger_class=Logger)
        statsd = None
        if cfg.statsd_host is not None:
            from sdserve.access.statsd import Lines, Statsd, locate

            lines = Lines(cfg.statsd_prefix, cfg.dogstatsd_tags)
            statsd = Statsd(locate(cfg.statsd_host), lines, log.warning)
        generation = cls(number, cfg, worker_class)
        generation.statsd = statsd
        return generation

    @property
    def warnings(self) -> list[str]:
        """What of the configuration the operator may see differently, a line each."""
        if not self.unused:
            return self.cfg.warnings
        source, unused = self.cfg.settings["bind"].source, ", ".join(self.unused)
        return [*self.cfg.warnings, f"bind ({source}): {unused} is not used: systemd's sockets are, see ListenStream="]

    def announce(self, log: Logger) -> None:
        """Tells the log what the configuration is."""
        for warning in self.warnings:
            log.warning("%s", warning)
        if log.is_enabled("debug"):
            lines = [f"  {name}: {setting.value}" for name, setting in self.cfg.settings.items()]
            log.debug("Current configuration:\n%s", "\n".join(lines))

    def close(self) -> None:
        """Lets go of what it would take to come back to it."""
        self.place.close()
        if self.logs is not None:
            self.logs.close()
        if self.statsd is not None:
            self.statsd.close()

    def preload(self) -> None:
        """Imports the application in the master, so that workers share its memory. Raises AppImportError."""
        if not self.cfg.preload_app:
            return
        import gc

        with signals.kept():
            application, uri = self.app.wsgi(), self.app.app_uri
        served_by, _ = self.worker_class.decide(application, uri)
        served_by.check_app(application, uri)
        gc.collect()
        gc.freeze()  # a collection in a worker would touch, and so copy, every shared page

    def open_listeners(self, present: list[Listener], bind: Callable[..., Listener]) -> None:
        """Sets `listeners` to what the configuration asks for, reusing `present` ones.

        Sockets from activation are systemd's to choose, and all stay. Raises ListenError. Nothing is left open by what
        it raises.
        """
        cfg, mode = self.cfg, socket_mode(self.cfg)
        wanted = match(cfg.address, present)
        if any(listener.activated for listener in present):
            self.listeners = list(present)
            if cfg.settings["bind"].source != "default":
                self.unused = [show(address) for address, listener in wanted if listener is None]
            return
        opened: list[Listener] = []
        try:
            self.listeners = []
            for address, listener in wanted:
                if listener is None:
                    listener = bind(address, backlog=cfg.backlog, reuse_port=cfg.reuse_port, socket_mode=mode)
                    opened.append(listener)
                self.listeners.append(listener)
        except BaseException:
            for listener in opened:
                listener.unlink()
                listener.close()
            raise


def socket_mode(cfg: Config) -> int:
    """The permissions of a Unix socket: socket_mode, or, as in gunicorn, what a configured umask leaves."""
    if cfg.settings["socket_mode"].source == "default" and cfg.settings["umask"].source != "default":
        return 0o777 & ~cfg.umask
    return cfg.socket_mode


def goal_of(cfg: Config, generation: int) -> Goal:
    """What the pool should be with a configuration."""
    return Goal(
        size=cfg.workers,
        generation=generation,
        gpus=max(1, len(cfg.gpus)),
        surge=cfg.surge if cfg.reload_strategy == "rolling" else 0,
        exclusive=cfg.surge == 0,
    )


def reset_environment(names: Mapping[str, str], original: Mapping[str, str]) -> None:
    """Takes the variables of a configuration back to what they were when the program started."""
    for name in names:
        os.environ.pop(name, None)
    os.environ.update({name: original[name] for name in names if name in original})
