"""How a master starts: what it has to hold before it may fork its first worker."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sdserve import __version__, events
from sdserve.arbiter.addresses import Addresses
from sdserve.arbiter.generation import Generation, goal_of
from sdserve.arbiter.hooks import Hooks
from sdserve.arbiter.host import Host
from sdserve.arbiter.lifecycle import Master
from sdserve.arbiter.pidfile_claim import PidfileClaim
from sdserve.arbiter.pool import Pool
from sdserve.arbiter.service import Service
from sdserve.arbiter.service_manager import ServiceManager
from sdserve.arbiter.steps import Steps
from sdserve.errors import AddressInUse
from sdserve.process.listeners import OBSERVED, Listener
from sdserve.systemd.notify import deaf_supervisor

if TYPE_CHECKING:
    from sdserve.arbiter.new_master import NewMaster

IN_USE_PAUSE = 1.0  # seconds between two attempts to listen on an address that is in use
IN_USE_TIMEOUT = 5.0  # seconds for all of them, as in gunicorn


class Start:
    """The start of one master: `new_master` where there is an old one. `handle_signals` is called while it waits."""

    def __init__(
        self,
        parts: tuple[Service, Host, Addresses, Pool, ServiceManager, PidfileClaim, Hooks, Steps],
        new_master: "NewMaster | None",
        handle_signals: Callable[[], None],
    ) -> None:
        self._service, self._host, self._addresses, self._pool = parts[:4]
        self._manager, self._claim, self._hooks, self._steps = parts[4:]
        self._new_master = new_master
        self._handle_signals = handle_signals

    def daemonize(self) -> None:
        """Detaches from the terminal, if the configuration says so; its pid is another one then."""
        service, cfg = self._service, self._service.cfg
        if cfg.daemon and self._new_master is None:
            self._host.daemonize()
            service.log.setup(*cfg.logging)
        service.pid = self._host.pid()

    def claim(self) -> bool:
        """Claims pidfile, listeners, and the application if it is preloaded.

        False when a signal said to stop meanwhile. Raises SdserveError when something cannot be had.
        """
        service, log = self._service, self._service.log
        log.event(events.STARTING, VERSION=__version__)
        if deaf_supervisor(service.launched_with, service.pid):
            log.warning("systemd does not hear when this service is ready, or hands over: its unit needs Type=notify")
        if service.cfg.config:
            log.info("Using config file: %s", service.cfg.config)
        generation = self._check()
        self._claim.make(service.cfg.pidfile, second=bool(service.master_pid))
        self._hooks.call("on_starting")
        old = self._new_master
        passed = (None, [], []) if old is None else (old.described, old.queue, old.counters)
        found, service.adoption, (counters, trouble) = self._host.found(*passed, service.cfg.fd_store)
        if trouble:
            log.warning("%s", trouble)
        service.count_in(counters)
        self._addresses.share(found)
        service.observed = [each for each in found if each.name in OBSERVED]
        found = [each for each in found if each.name not in OBSERVED]
        service.systemd = any(listener.activated for listener in found)
        if not self._open_listeners(generation, found):
            return False
        generation.announce(log)
        self._manager.announce()
        self._host.title(service.title)
        log.debug("Arbiter booted")
        log.info("Listening at: %s (%s)", ",".join(map(str, service.listeners)), service.pid)
        if not generation.worker_class.undecided:
            log.info("Using worker: %s", service.cfg.worker_class_str)
        self._pool.store_queue(self._manager.notifier)
        self._manager.ping()
        self._manager.ask_for_time(True)
        self._steps.step("the import of the application", service.cfg.boot_timeout, generation.preload)
        if old is not None:
            old.listen()
        self._hooks.call("when_ready")
        return True

    def _check(self) -> Generation:
        """The first generation, which is the one in force from here on."""
        service = self._service
        generation = self._steps.step(
            "the import of the worker class",
            service.cfg.boot_timeout,
            lambda: Generation.of(service.goal.generation, service.cfg, service.log),
        )
        service.setup(generation)
        service.goal = goal_of(service.cfg, generation.number)
        self._hooks.call("nworkers_changed", service.goal.size, None)
        return generation

    def _open_listeners(self, generation: Generation, found: list[Listener]) -> bool:
        """Opens what the configuration asks for. False when a signal said to stop meanwhile. Raises ListenError.

        An address that is in use is tried again for some seconds: its owner may be about to leave. An old
        master that has it passes it on, once its own reload has succeeded.
        """
        service, loop = self._service, self._service.loop
        until = loop.now() + IN_USE_TIMEOUT
        told = False
        while True:
            if self._new_master is not None:
                self._new_master.look_ahead()
            try:
                generation.open_listeners([*found, *self._addresses.unserved], self._host.bind)
                self._addresses.take_up(generation.listeners)
                for listener in found:
                    if listener not in generation.listeners:  # an old master's, which is not to be served any more
                        self._addresses.let_go(listener)
                return True
            except AddressInUse as error:
                if loop.now() >= until:
                    raise
                if not told:  # once: the last attempt says it again, if it comes to that
                    service.log.error("%s; trying again for %g s", error, IN_USE_TIMEOUT)
                told = True
            loop.call_at(loop.now() + IN_USE_PAUSE, lambda: None)
            loop.turn()
            self._handle_signals()
            if service.state is not Master.STARTING:
                return False
