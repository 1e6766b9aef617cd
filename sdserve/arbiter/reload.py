"""HUP: a new generation beside the old one, and back to the old one when the new one cannot serve.

A reload is a transaction. `begin` loads the configuration and makes it the one that workers are forked with; `commit`,
once all of the new generation serve and the old ones have acknowledged that they take no more connections, lets
go of what only the old one needed; `roll_back` restores everything. Until the commit old workers serve on; a rolling
reload, or one of an exclusive pool, replaces them one by one.

A roll-back cannot fail. What it needs is held open since before the reload: directory, log files, listeners, settings.
Should one of its steps fail all the same, it is tried again and the others are taken: the old generation serves on.
"""

import os
from collections.abc import Callable
from functools import partial

from sdserve import events
from sdserve.arbiter import decide
from sdserve.arbiter.gauges import tell_gauges
from sdserve.arbiter.generation import Generation, goal_of, reset_environment
from sdserve.arbiter.hooks import explain
from sdserve.arbiter.lifecycle import Master, MasterEvent, Phase
from sdserve.arbiter.loop import NO_DEADLINE
from sdserve.arbiter.policy import Parts, Policy
from sdserve.config import Config
from sdserve.config.paths import Place
from sdserve.errors import Interruption, call_hook
from sdserve.process.counters import RELOADS
from sdserve.process.listeners import Listener

ACKNOWLEDGE = 1.0  # seconds that a reload waits for old workers which are too busy to say that they heard


class Reload(Policy):
    """The reload under way, if any, and whether another one follows.

    `load` reads the configuration again. `pass_on` asks a new master that took over to reload instead, if there is one;
    `bring_along` asks one that has not taken over to reload as well.
    """

    def __init__(
        self, parts: Parts, load: Callable[[], Config], pass_on: Callable[[], bool], bring_along: Callable[[], None]
    ) -> None:
        super().__init__(parts)
        self._load = load
        self._pass_on = pass_on
        self._bring_along = bring_along
        self._beside = 0  # the new master, by its pid, that was there when this reload began
        self._previous_goal = self._service.goal
        self._new_size = 0
        self._candidate: Config | None = None  # what was loaded last; parts of it may be in force
        self._new: Generation | None = None
        self._opened: list[Listener] = []
        self._newest = 1
        self._again = False
        self._abandoned = False
        self._acknowledge_by: float | None = None
        self._deadline = NO_DEADLINE
        self._began = 0.0

    def begin(self) -> None:
        service = self._service
        if service.state in (Master.STARTING, Master.RELOADING):
            self._again = True
            return
        if service.state is not Master.RUNNING:
            self._leave_to_another()
            return
        service.advance(MasterEvent.RELOAD)
        self._began = service.loop.now()
        self._beside = service.reexec_pid
        self._commands.reload_begins()
        self._manager.report()
        service.previous, self._previous_goal = service.generation, service.goal
        self._new_size = service.goal.size
        self._acknowledge_by = None
        self._opened = []
        self._candidate = self._new = None
        try:
            self._steps.step("loading the configuration", service.cfg.boot_timeout, self._install)
            cfg = service.cfg
            limit = decide.reload_limit(service.goal, cfg.boot_timeout, cfg.graceful_timeout)
            if limit is not None:
                late = f"the new generation did not serve within {limit:g} seconds"
                self._deadline = service.loop.call_at(service.loop.now() + limit, lambda: self.roll_back(late))
        except Interruption:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the old generation serves on
            self.roll_back(explain(service.log, error))

    def _install(self) -> None:
        """Makes a freshly loaded configuration the one in force."""
        service, previous = self._service, self._service.previous
        assert previous is not None
        reset_environment(previous.cfg.env, service.launched_with)
        self._candidate = cfg = self._load()
        self._newest += 1
        self._new = generation = Generation.of(self._newest, cfg, service.log)
        generation.open_listeners(self._addresses.available(previous), self._host.bind)
        self._opened = [each for each in generation.listeners if each not in previous.listeners]
        self._addresses.take_up(self._opened)
        if cfg.preload_app:
            cfg.warnings.append("preload_app: modules that are loaded already stay as they are; USR2 brings new code")
        generation.preload()
        service.setup(generation)
        generation.announce(service.log)
        self._manager.announce()
        service.log.reopen_files()
        before, service.goal = service.goal.size, goal_of(cfg, generation.number)
        self._new_size = cfg.workers
        call_hook("nworkers_changed", self._hooks.call, "nworkers_changed", cfg.workers, before)
        call_hook("on_reload", self._hooks.call, "on_reload")

    def roll_back(self, reason: str) -> None:
        """Back to the generation that serves; `reason` goes to the log, to systemd, and to those who wait for it."""
        service, previous = self._service, self._service.previous
        assert previous is not None
        candidate, new, size = self._candidate, self._new, self._size_before()
        service.generation, service.cfg, service.goal = previous, previous.cfg, self._previous_goal
        self._take_all(
            "roll-back",
            lambda: service.setup(previous),  # first, so that the old log tells the rest
            lambda: service.log.event(events.RELOAD_FAILED, REASON=reason),
            lambda: reset_environment(candidate.env if candidate is not None else {}, service.launched_with),
            lambda: os.environ.update(previous.cfg.env),
            lambda: self._come_back(previous.place),
            *self._leave(self._opened),
            lambda: new.close() if new is not None else None,
        )
        if size != self._previous_goal.size:
            service.goal = self._previous_goal.replace(size=size)
        self._finish(MasterEvent.ROLLED_BACK, f"reload failed: {reason}")

    def _come_back(self, place: Place) -> None:
        try:
            place.enter()
        except OSError as error:  # we may no longer search it, but are in it still, unless the reload has left it
            text = "the working directory cannot be entered any more: %s; it is %s now"
            self._service.log.warning(text, error.strerror, os.getcwd())

    def _leave(self, listeners: list[Listener]) -> list[Callable[[], None]]:
        """The steps that let go of listeners."""
        return [partial(self._addresses.let_go, listener) for listener in listeners]

    def _size_before(self) -> int:
        """The wanted number of workers before the reload, and what TTIN, TTOU and WINCH have made of it since."""
        size = self._service.goal.size
        return max(1, self._previous_goal.size + size - self._new_size) if size else 0

    def settle(self) -> None:
        """Commits once the new generation serves, and the old workers have acknowledged, or had time enough to."""
        if not self._pool.all_serve():
            return
        loop = self._service.loop
        if self._acknowledge_by is None:
            self._acknowledge_by = loop.now() + ACKNOWLEDGE
            loop.call_at(self._acknowledge_by, lambda: None)
        if self._acknowledged() or loop.now() >= self._acknowledge_by:
            self._commit()

    def _acknowledged(self) -> bool:
        """Whether every old worker has stopped accepting."""
        newest = self._service.goal.generation
        return not any(
            handle.generation != newest and handle.phase is Phase.RETIRING and not handle.acknowledged
            for handle in self._service.children
        )

    def _commit(self) -> None:
        """The new generation serves: what only the old one needed goes."""
        service = self._service
        held = [service.previous.close] if service.previous is not None else []
        self._take_all(
            "reload",
            *self._leave(service.outgoing),
            *held,
            lambda: self._claim.follow(service.cfg.pidfile, second=bool(service.master_pid)),
            lambda: self._host.title(service.title),
            self._bring_new_master_along,
        )
        self._finish(MasterEvent.RELOADED, "")
        service.log.event(events.RELOADED, STATUS=service.status_line(), GENERATION=service.goal.generation)

    def _bring_new_master_along(self) -> None:
        if self._beside and self._beside == self._service.reexec_pid:  # it may have read older code than serves now
            self._bring_along()

    def abandon(self) -> None:
        """This master stops: nothing of the old generation is needed any more, and no reload is done."""
        service = self._service
        self._abandoned = self._again or service.previous is not None
        self._again = False
        if service.previous is not None:
            self._take_all("reload that a stop ended", *self._leave(service.outgoing), service.previous.close)
            service.previous = None
        self._deadline.cancel()

    def pass_on(self) -> None:
        """The stop has begun: the reload that was under way is done by a new master that has taken over, or by none."""
        if self._abandoned:
            self._leave_to_another()

    def _leave_to_another(self) -> None:
        """This master does not reload any more: a new one that has taken over does, or nobody."""
        service = self._service
        if service.handed_over and (self._commands.overtaken() or self._pass_on()):
            service.log.info("HUP: the new master (pid %s) reloads instead", service.reexec_pid)
            return
        service.log.info("HUP ignored, the server is stopping")
        self._commands.reload_begins()
        self._commands.reloaded("the service is being stopped")

    def _finish(self, event: MasterEvent, trouble: str) -> None:
        service = self._service
        service.previous = None
        self._deadline.cancel()
        service.trouble = trouble
        service.came_to(trouble or "reload succeeded")
        service.cell.add(RELOADS + bool(trouble))
        service.advance(event)
        self._take_all(
            "reload",
            self._observation.renew,
            lambda: self._control.renew(service.cfg.control_socket),
            lambda: self._manager.reloaded(self._began),  # after a failure too: it is over
            lambda: self._commands.reloaded(trouble),
            lambda: tell_gauges(service),
        )
        self.catch_up()

    def catch_up(self) -> None:
        """Begins the reload that was asked for when none could begin, during a start or another reload."""
        if self._again:
            self._again = False
            self.begin()
