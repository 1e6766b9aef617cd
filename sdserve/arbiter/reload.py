"""HUP: a new generation beside the old one, and back to the old one when the new one cannot serve.

A reload is a transaction. `begin` loads the configuration and makes it the one that workers are forked with; `commit`,
once all of the new generation serve and the old ones have heeded that they shall take no more connections, lets go of
what only the old one needed; `roll_back` restores everything. Until the commit the old workers serve on;
a rolling reload replaces them one by one.

A roll-back cannot fail. What it needs is held open since before the reload: directory, log files, listeners, settings.
Should one of its steps fail all the same, it is tried again and the others are taken: the old generation serves on.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sdserve.arbiter import decide
from sdserve.arbiter.generation import Generation, goal_of, reset_environment
from sdserve.arbiter.lifecycle import Master, MasterEvent, Phase
from sdserve.arbiter.loop import Deadline
from sdserve.errors import AppImportError, HookError, Interruption, SdserveError, call_hook
from sdserve.gateway.blame import account
from sdserve.process.listeners import Listener

if TYPE_CHECKING:
    from sdserve.arbiter.arbiter import Arbiter
    from sdserve.config import Config

HEED = 1.0  # seconds that a reload waits for old workers which are too busy to say that they heard


class Reload:
    """The reload under way, if any, and whether another one shall follow.

    previous: the generation that a roll-back would restore; None when no reload is under way.
    """

    def __init__(self, arbiter: "Arbiter") -> None:
        self._arbiter = arbiter
        self.previous: Generation | None = None
        self._previous_goal = arbiter.goal
        self._new_size = 0
        self._candidate: Config | None = None  # what was loaded last; parts of it may be in force
        self._new: Generation | None = None
        self._opened: list[Listener] = []
        self._newest = 1
        self._again = False
        self._abandoned = False
        self._heed_by: float | None = None
        self._deadline: Deadline | None = None

    def begin(self) -> None:
        arbiter = self._arbiter
        if arbiter.state in (Master.STARTING, Master.RELOADING):
            self._again = True
            return
        if arbiter.state is not Master.RUNNING:
            self._leave_to_another()
            return
        arbiter.advance(MasterEvent.RELOAD)
        arbiter.manager.reloading(arbiter.status().line())
        self.previous, self._previous_goal = arbiter.generation, arbiter.goal
        self._new_size = arbiter.goal.size
        self._heed_by = None
        self._opened = []
        self._candidate = self._new = None
        try:
            arbiter.steps.step("loading the configuration", arbiter.cfg.boot_timeout, self._install)
            self._bound()
            arbiter.wakeup()  # a reload may begin at the end of a turn, and its workers are forked in the next one
        except Interruption:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the old generation serves on
            self.roll_back(explain(arbiter, error))

    def _install(self) -> None:
        """Makes a freshly loaded configuration the one in force."""
        arbiter, previous = self._arbiter, self.previous
        assert previous is not None
        reset_environment(previous.cfg.env, arbiter.launched_with)
        self._candidate = cfg = arbiter.load()
        self._newest += 1
        self._new = generation = Generation.of(self._newest, cfg, arbiter.log)
        self._opened = generation.open_listeners(previous.listeners, arbiter.host.bind)
        if cfg.preload_app:
            arbiter.log.warning("preload_app: modules that are loaded already stay as they are; USR2 brings new code")
        generation.preload()
        arbiter.setup(generation)
        arbiter.announce()
        arbiter.log.reopen_files()
        before, arbiter.goal = arbiter.num_workers, goal_of(cfg, generation.number)
        self._new_size = cfg.workers
        call_hook("nworkers_changed", arbiter.hook, "nworkers_changed", cfg.workers, before)
        call_hook("on_reload", arbiter.hook, "on_reload")

    def _bound(self) -> None:
        """Rolls back what has not come to an end in time, whatever it waits for."""
        arbiter, cfg = self._arbiter, self._arbiter.cfg
        limit = decide.reload_limit(arbiter.goal, cfg.boot_timeout, cfg.graceful_timeout)
        if limit is not None:
            reason = f"the new generation did not serve within {limit:g} seconds"
            self._deadline = arbiter.loop.call_at(arbiter.loop.now() + limit, lambda: self.roll_back(reason))

    def _unbound(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def roll_back(self, reason: str) -> None:
        """Back to the generation that serves; `reason` goes to the log, to systemd, and to who waits for the reload."""
        arbiter, previous = self._arbiter, self.previous
        assert previous is not None
        candidate, new, size = self._candidate, self._new, self._size_before()
        arbiter.generation, arbiter.cfg, arbiter.goal = previous, previous.cfg, self._previous_goal
        self._take(
            "roll-back",
            lambda: arbiter.setup(previous),  # first, so that the old log tells the rest
            lambda: arbiter.log.error("Reload failed, the old workers serve on: %s", reason),
            lambda: reset_environment(candidate.env if candidate is not None else {}, arbiter.launched_with),
            lambda: os.environ.update(previous.cfg.env),
            lambda: previous.place.enter(),
            *self._closings(self._opened),
            lambda: new.close() if new is not None else None,
        )
        if size != self._previous_goal.size:
            arbiter.goal = replace(self._previous_goal, size=size)
        self._finish(MasterEvent.ROLLED_BACK, f"reload failed: {reason}")

    def _take(self, what: str, *steps: Callable[[], object]) -> None:
        """Takes each step, whatever became of the others; one that fails is tried once more."""
        for step in steps:
            for attempt in ("is tried once more", "is left out, the others are taken"):
                try:
                    step()
                    break
                except Exception:
                    self._arbiter.log.exception("One step of a %s failed; it %s", what, attempt)

    @staticmethod
    def _closings(listeners: list[Listener]) -> list[Callable[[], None]]:
        """The steps that let go of listeners; the file of a Unix socket goes first."""
        return [step for listener in listeners for step in (listener.unlink, listener.close)]

    def _size_before(self) -> int:
        """The wanted number of workers before the reload, and what TTIN, TTOU and WINCH have made of it since."""
        size = self._arbiter.goal.size
        return max(1, self._previous_goal.size + size - self._new_size) if size else 0

    def heeded(self) -> bool:
        """Whether every old worker has heard that it shall take no more connections, or had time enough."""
        arbiter = self._arbiter
        deaf = [
            handle
            for handle in arbiter.children
            if handle.generation != arbiter.goal.generation and handle.phase is Phase.RETIRING and not handle.heeded
        ]
        if not deaf:
            return True
        now = arbiter.loop.now()
        if self._heed_by is None:
            self._heed_by = now + HEED
            arbiter.loop.call_at(self._heed_by, lambda: None)
        return now >= self._heed_by

    def commit(self) -> None:
        """The new generation serves: what only the old one needed goes."""
        arbiter = self._arbiter
        held = [self.previous.close] if self.previous is not None else []
        self._take(
            "reload",
            *self._closings(self.outgoing()),
            *held,
            lambda: arbiter.claim.follow(arbiter.cfg.pidfile, second=bool(arbiter.master_pid)),
            arbiter.open_control,
            arbiter.take_title,
        )
        self._finish(MasterEvent.RELOADED, "")
        arbiter.log.info("Reloaded: %s", arbiter.status().line())

    def outgoing(self) -> list[Listener]:
        """The listeners that only the old generation serves, while a reload is under way."""
        if self.previous is None:
            return []
        return [listener for listener in self.previous.listeners if listener not in self._arbiter.LISTENERS]

    def abandon(self) -> None:
        """This master stops: nothing of the old generation is needed any more, and no reload is done."""
        self._abandoned = self._again or self.previous is not None
        self._again = False
        if self.previous is not None:
            files = [] if self._arbiter.upgrade.shares_listeners else [each.unlink for each in self.outgoing()]
            ends = [each.close for each in self.outgoing()]
            self._take("reload that a stop ended", *files, *ends, self.previous.close)
            self.previous = None
        self._unbound()

    def pass_on(self) -> None:
        """The stop has begun: the reload that was under way is done by a new master that has taken over, or by none."""
        if self._abandoned:
            self._leave_to_another()

    def _leave_to_another(self) -> None:
        """A reload that this master does not do any more: one that has taken over does, else nobody."""
        arbiter = self._arbiter
        if arbiter.upgrade.handed_over and (arbiter.commands.overtaken() or arbiter.upgrade.pass_on_reload()):
            arbiter.log.info("HUP: the new master (pid %s) reloads instead", arbiter.reexec_pid)
            return
        arbiter.log.info("HUP ignored, the server is stopping")
        arbiter.commands.reloaded("the service is being stopped")

    def _finish(self, event: MasterEvent, trouble: str) -> None:
        arbiter = self._arbiter
        self.previous = None
        self._unbound()
        arbiter.trouble = trouble
        arbiter.advance(event)
        self._take(
            "reload",
            # After a failure too: RELOADING=1 without READY=1 would let `systemctl reload` wait for ever.
            lambda: arbiter.manager.ready(arbiter.status().line()),
            lambda: arbiter.commands.reloaded(trouble),
        )
        self.catch_up()

    def catch_up(self) -> None:
        """Begins the reload that was asked for when none could begin, during a start or another reload."""
        if self._again:
            self._again = False
            self.begin()


def explain(arbiter: "Arbiter", error: BaseException) -> str:
    """One line for what a reload or a hook raised; the traceback goes to the log when the error is not one of ours."""
    try:
        return _explained(arbiter, error)
    except Exception as second:
        arbiter.log.error("Exception while explaining another one", exc_info=second)
        return type(error).__name__


def _explained(arbiter: "Arbiter", error: BaseException) -> str:
    if isinstance(error, SdserveError) and not isinstance(error, HookError):
        if isinstance(error, AppImportError) and (told := account(error)):
            arbiter.log.error("Exception while loading the application\n%s", told)
        arbiter.log.debug("the reload failed", exc_info=error)
        return "; ".join(str(error).splitlines())
    arbiter.log.error("Exception in the configuration or a hook", exc_info=error.__cause__ or error)
    if isinstance(error, HookError):
        return str(error)
    return f"{type(error).__name__}: {error}"
