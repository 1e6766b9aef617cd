"""What sdservectl can ask of a master, as ops/commands.py lists it: some at once, others when the outcome is known."""

from collections.abc import Callable
from typing import Any

from sdserve.arbiter import slow
from sdserve.arbiter.call import Call
from sdserve.arbiter.control import Handler
from sdserve.arbiter.drain import Drain
from sdserve.arbiter.figures import figures
from sdserve.arbiter.lifecycle import LEAVING, Master
from sdserve.arbiter.loop import NO_DEADLINE, Deadline
from sdserve.arbiter.service import Service
from sdserve.arbiter.stacks import Stacks
from sdserve.ops.happenings import Happening
from sdserve.systemd.environment import digests

LOOK_EVERY = 1.0  # seconds between two answers to a client that follows the status


class Commands:
    """The commands, and the calls that wait for an outcome.

    awaited: says what an upgrade has to wait for, or ""
    refusal: says why none can begin, or ""
    resize: sets the wanted number of workers
    all_serve: whether as many as are wanted serve
    stop: stops the service
    """

    def __init__(
        self,
        service: Service,
        reload: Callable[[], None],
        upgrade: Callable[[], None],
        awaited: Callable[[], str],
        refusal: Callable[[], str],
        resize: Callable[[int], None],
        all_serve: Callable[[], bool],
        stop: Callable[[], None],
    ) -> None:
        self._service = service
        self._begin_reload = reload
        self._begin_upgrade = upgrade
        self._awaited = awaited
        self._refusal = refusal
        self._resize = resize
        self._all_serve = all_serve
        self._stacks = Stacks(service.loop)
        self.drain = Drain(service, stop)
        self._reloads: list[Call] = []  # for which a reload has still to begin
        self._reloading: list[Call] = []  # for the one that is under way
        self._upgrades: list[Call] = []
        self._waiting: dict[Call, Deadline] = {}  # for a state, and how long
        self._watching: list[Call] = []
        self._following: list[Call] = []

    def table(self) -> dict[str, Handler]:
        return {
            "status": self._status,
            "top": self._top,
            "reload": self._reload,
            "upgrade": self._upgrade,
            "scale": self._scale,
            "stacks": self._ask_stacks,
            "drain": self._drain,
            "undrain": self._undrain,
            "events": self._follow,
            "wait": self._wait,
            "environment": self._environment,
        }

    def _environment(self, call: Call) -> None:
        """The environment this service was started with, for an ExecReload= that was started with a newer one."""
        call.reply("digests", environment=digests(self._service.launched_with))

    def _status(self, call: Call) -> None:
        def look() -> None:
            status = self._service.status()
            call.tell_or_reply(status.line(), status=status.as_dict())

        self._again(call, look)

    def _top(self, call: Call) -> None:
        service = self._service

        def look() -> None:
            call.tell_or_reply(service.status_line(), figures=figures(service).as_dict())

        self._again(call, look, lambda: slow.SOON if slow.ask(service.children, service.loop.now()) else 0.0)

    def _again(self, call: Call, look: Callable[[], None], prepare: Callable[[], float] = lambda: 0.0) -> None:
        """Has `look` tell who asked; again and again, if that was asked for.

        prepare: is called before each look, and says for how many seconds that has to wait
        """

        def now() -> None:
            look()
            if not call.over:
                call.after(loop, call.get("interval") or LOOK_EVERY, again)

        def again() -> None:
            if wait := prepare():
                call.after(loop, wait, now)
            else:
                now()

        loop = self._service.loop
        self._watching.append(call)
        again()

    def _reload(self, call: Call) -> None:
        self._reloads.append(call)
        self._begin_reload()

    def _upgrade(self, call: Call) -> None:
        if (awaited := self._awaited()) or not (refusal := self._refusal()):
            self._upgrades.append(call)
            if awaited and call.more:
                call.tell(awaited)
            self._begin_upgrade()
        elif self._service.reexec_pid or self._service.master_pid:
            call.fail("Refused", "an upgrade is under way already")
        else:
            call.fail("Refused", f"no upgrade now: {refusal}")

    def _scale(self, call: Call) -> None:
        service, wanted = self._service, call.get("workers")
        before = service.goal.size
        if service.state in LEAVING:
            call.fail("Refused", f"The server is {service.state.value}.")
            return
        self._resize(wanted)
        until = f"until a reload or an upgrade reads the configuration (workers = {service.cfg.workers})"
        service.happens("scaled", f"{wanted} workers are wanted, {before} were before")
        call.reply(f"{wanted} workers are wanted, {before} were before; {until}", wanted=wanted, before=before)

    def _ask_stacks(self, call: Call) -> None:
        handles, slot = list(self._service.children), call.get("slot")
        if slot is not None:
            handles = [handle for handle in handles if handle.worker.slot == slot]
            if not handles:
                call.fail("NoSuchWorker", f"no worker has slot {slot}", slot=slot)
                return
        number = "1 worker" if len(handles) == 1 else f"{len(handles)} workers"
        self._stacks.ask(handles, lambda found: call.reply(f"{number}", workers=[each.as_dict() for each in found]))

    def _follow(self, call: Call) -> None:
        service = self._service
        self._following = [*(each for each in self._following if not each.over), call]
        call.tell(service.status_line(), **Happening("following", "", service.loop.now(), service.pid).about())
        service.followers = [self._pass_on]

    def _pass_on(self, told: Happening) -> None:
        """Tells the clients that follow events what has happened. Without any, none is composed any more."""
        for call in self._following:
            call.tell(told.text, **told.about())
        self._following = [call for call in self._following if not call.over]
        if not self._following:
            self._service.followers = []

    def _drain(self, call: Call) -> None:
        if self._service.reexec_pid:
            call.fail("Refused", "an upgrade is under way")
        elif (state := self._service.state) not in (Master.RUNNING, Master.RELOADING):
            call.fail("Refused", f"The server is {state.value}.")
        else:
            self.drain.ask(call)

    def _undrain(self, call: Call) -> None:
        if (state := self._service.state) in LEAVING:  # the workers were told to leave: nothing takes that back
            call.fail("Refused", f"The server is {state.value}.")
        else:
            self.drain.take_back(call)

    def _wait(self, call: Call) -> None:
        loop, seconds = self._service.loop, call.get("seconds")
        self._waiting[call] = NO_DEADLINE
        if seconds is not None:
            late = f"not {call.get('state') or 'serving'} within {seconds:.3g} s"
            too_late = lambda: call.fail("TooLate", f"{late}: {self._service.status_line()}")  # noqa: E731
            self._waiting[call] = loop.call_at(loop.now() + seconds, too_late)
        self.look()

    def look(self) -> None:
        """Answers the calls that wait for a state that has come; called in every turn of the loop."""
        self._watching = [call for call in self._watching if not call.over]
        for call in list(self._waiting):
            if not call.over and self._is(call.get("state") or "serving"):
                status = self._service.status()
                call.reply(status.line(), status=status.as_dict())
            if call.over:
                self._waiting.pop(call).cancel()

    def _is(self, state: str) -> bool:
        service = self._service
        if state == "serving":
            settled = service.state is Master.RUNNING and not service.reexec_pid
            return settled and not service.draining and service.goal.size > 0 and self._all_serve()
        if state == "draining":
            return service.draining
        return False  # stopped: nobody answers then

    def reload_begins(self) -> None:
        """Those who have asked until now hear of this one. Later ones may mean code that it no longer loads."""
        self._reloading += self._reloads
        self._reloads = []

    def reloaded(self, trouble: str) -> None:
        """The reload that has begun last ended; `trouble` is "" or why it failed."""
        service = self._service
        warnings = service.generation.warnings if service.generation is not None else []
        done = f"reloaded: {service.status_line()}"
        self._tell(self._reloading, "ReloadFailed", trouble, done, warnings=warnings)

    def overtaken(self) -> bool:
        """A new master takes over before the reload is done: clients have to ask that one. False if none waits."""
        waits = bool(self._reloading or self._reloads)
        self._reloading += self._reloads
        self._reloads = []
        self._send_on(self._reloading)
        return waits

    def passed_on(self) -> None:
        """The control socket is a new master's: clients that wait for states, or follow, have to ask that one."""
        self._send_on([*self._waiting, *self._watching, *self._following])
        self._watching, self._following = [], []
        self.look()

    def _send_on(self, waiting: list[Call]) -> None:
        self._tell(waiting, "TakenOver", "a new master takes over, which has to be asked again", "")

    def upgraded(self, trouble: str, done: str = "") -> None:
        """An upgrade ended; `trouble` is "" or why it failed, `done` what has come of it."""
        self._tell(self._upgrades, "UpgradeFailed", trouble, done)

    def _tell(self, waiting: list[Call], failure: str, trouble: str, done: str, **fields: Any) -> None:
        """Answers all of them. Those who cannot be told for now, for want of memory, stay for the next attempt."""
        errors: list[Exception] = []
        for call in list(waiting):
            try:
                if trouble:
                    call.fail(failure, trouble)
                else:
                    call.reply(done, **fields)
                waiting.remove(call)
            except Exception as error:  # noqa: BLE001 - it is raised when the others have heard
                errors.append(error)
        if errors:
            raise ExceptionGroup("who waits for an answer could not be told", errors)
