"""USR2: what an upgrade means for a master, in either role.

As the old master (successor.py): it launches a new one, and once that serves, hands over to it by itself (`auto`) or
waits for the operator (`manual`), whose TERM then hands over. A new master that fails or is too slow is dropped, and
this one serves on. As the new master (succession.py): it becomes the main process when it is told so, and is promoted
at the old one's end.
"""

from typing import TYPE_CHECKING, Any

from sdserve.arbiter.decide import Backoff
from sdserve.arbiter.lifecycle import Master
from sdserve.arbiter.lifecycle import Upgrade as State
from sdserve.arbiter.reexec import Reexec
from sdserve.arbiter.succession import Succession
from sdserve.arbiter.successor import Successor
from sdserve.process.handover import Handover
from sdserve.systemd import journal
from sdserve.systemd.notify import deaf_supervisor, is_main_process, main_process

if TYPE_CHECKING:
    from sdserve.arbiter.arbiter import Arbiter


class Upgrade:
    """The upgrade that a master is part of, if any: as the old one, or as the new one with `line` to the old."""

    def __init__(self, arbiter: "Arbiter", line: Handover | None) -> None:
        self._arbiter = arbiter
        self._line = line
        host, loop = arbiter.host, arbiter.loop
        self._reexec = Successor(host, loop, arbiter.log, self._child_serves, self._child_lost)
        self._succession = (
            Succession(
                *(host, loop, line, self._got_control, self._became_main, arbiter.handle_hup),
                *(arbiter.maybe_promote_master, self._parent_late),
            )
            if line
            else None
        )
        self._again = False
        self._withdrawn = 0  # how many workers retired to let a new master serve alone

    # --- the new master -------------------------------------------------------------------------------------------

    @property
    def parent_pid(self) -> int:
        return self._succession.parent if self._succession else 0

    @property
    def succeeding(self) -> bool:
        """Whether another master still has, or shares, what this one claims."""
        return self._succession is not None

    @property
    def parent_drains(self) -> bool:
        """Whether the old master finishes requests: when the main process ends, systemd kills what is left."""
        return self._succession is not None and self._succession.is_main and bool(self.parent_pid)

    @property
    def described(self) -> list[dict[str, Any]] | None:
        """What the old master said of each listener that it passed on, in their order; None without an old master."""
        return self._succession.described if self._succession else None

    @property
    def inherited_queue(self) -> list[int]:
        """The two ends of the adoption queue, from the old master; [] without one."""
        return self._succession.queue if self._succession else []

    def listen(self) -> None:
        """Starts to hear the old master."""
        if self._succession is not None:
            self._succession.begin()

    def serves(self) -> None:
        """The workers here serve: the old master is told, and an upgrade that was asked for meanwhile begins."""
        if self._succession is not None:
            self._succession.ready(self._arbiter.status().line())
        self._catch_up()

    def failed(self, reason: str) -> None:
        """Tells the old master why this one ends."""
        if self._line is not None:
            self._line.send("failed", reason=reason)

    def _got_control(self, message: dict[str, Any]) -> None:
        arbiter = self._arbiter
        for fd in message["fds"]:
            arbiter.control.adopt(arbiter.host.adopt(fd, "", message["control"]))

    def _became_main(self) -> None:
        arbiter = self._arbiter
        arbiter.open_control()
        stopping = arbiter.state is Master.STOPPING
        arbiter.manager.become_main(arbiter.status().line(), stopping=stopping)
        arbiter.store_queue()
        arbiter.log.info("This master (pid %s) is the main process now", arbiter.pid)

    def _parent_late(self, seconds: float) -> None:
        late = "The old master (pid %s) has not ended %.0f seconds after the hand-over and is killed"
        self._arbiter.log.error(late, self.parent_pid, seconds)

    def promote(self) -> None:
        """Takes what the old master held by name, if it has ended."""
        arbiter, succession = self._arbiter, self._succession
        if succession is None or succession.parent:
            return
        self._succession = self._line = None
        arbiter.log.info("Master has been promoted.")
        arbiter.claim.promote()
        arbiter.take_title()
        if not succession.is_main and is_main_process(arbiter.launched_with, arbiter.pid):
            # systemd listens to the main process only, and that is dead: it can take us for nothing but a leftover.
            arbiter.log.error("The old master died before it handed over: this one leaves, systemd starts another")
            arbiter.stop(restart=True)
        elif not succession.is_main and arbiter.state is not Master.STOPPING:
            arbiter.open_control()
            arbiter.manager.become_main(arbiter.status().line())
        self._catch_up()

    def _catch_up(self) -> None:
        """Begins the upgrade that was asked for too early."""
        if self._again and not self.parent_pid:
            self._again = False
            self.begin()

    # --- the old master -------------------------------------------------------------------------------------------

    @property
    def child_pid(self) -> int:
        return self._reexec.pid

    @property
    def child_serves(self) -> bool:
        """Whether a new master's workers serve beside ours, or instead of them."""
        return self._reexec.state in (State.SERVING, State.HANDED_OVER)

    @property
    def handed_over(self) -> bool:
        """Whether a new master is the main process, and this one drains."""
        return self._reexec.state is State.HANDED_OVER

    @property
    def shares_listeners(self) -> bool:
        """Whether another master serves on when this one ends; one that was dropped does not."""
        return bool(self.parent_pid or (self.child_pid and not self._reexec.dropped))

    @property
    def waits(self) -> bool:
        """Whether this master must not end yet: an old one drains, or a new one was dropped and nobody else ends it."""
        return self.parent_drains or self._reexec.leaves

    @property
    def automatic(self) -> bool:
        """Whether a new master takes over by itself once it serves; the default is yes under systemd."""
        arbiter = self._arbiter
        if arbiter.cfg.upgrade is None:
            return arbiter.systemd or arbiter.manager.notifier.enabled
        return bool(arbiter.cfg.upgrade == "auto")

    @property
    def refusal(self) -> str:
        """Why no new master can be launched now, or ""."""
        state = self._arbiter.state
        if self._arbiter.pid == 1:
            return "This is PID 1 of a container, which ends with it: replace the container instead."
        if self.child_pid:
            return "Child exists."
        if self.parent_pid:
            return "Parent exists."
        if deaf_supervisor(self._arbiter.launched_with, self._arbiter.pid):
            return "systemd could not be told of a new main process: the unit needs Type=notify."
        return "" if state in (Master.RUNNING, Master.RELOADING) else f"The server is {state.value}."

    def begin(self) -> None:
        """Launches a new master, at once or after the start, unless an upgrade is under way already."""
        arbiter = self._arbiter
        if self.parent_drains and not self.child_pid:
            arbiter.log.info("USR2: the old master (pid %s) still drains, the upgrade follows its end", self.parent_pid)
            self._again = True
        elif arbiter.state is Master.STARTING and not self.parent_pid:
            self._again = True
        elif self.refusal:
            arbiter.log.warning("USR2 signal ignored. %s", self.refusal)
        else:
            self._launch()

    def _launch(self) -> None:
        arbiter = self._arbiter
        manager = arbiter.manager
        launch = Reexec(
            arbiter.program,
            arbiter.cfg.directory,
            arbiter.launched_with,
            lambda pid: {
                **journal.variables(arbiter.host.environ),
                **manager.notifier.variables(),
                **manager.watchdog.variables(pid),
                **main_process(arbiter.launched_with, arbiter.pid, pid),
            },
            lambda: arbiter.cfg.pre_exec(arbiter),
        )
        # Its own boot time-out ends it first, as a rule, and says why.
        boot = arbiter.cfg.boot_timeout
        patience = boot + Backoff.CAP if boot else None
        try:
            self._reexec.start(arbiter.LISTENERS, arbiter.adoption.queue, launch, patience)
        except OSError as error:
            self._child_lost(0, f"no room for a new master: {error.strerror}")
            return
        arbiter.log.info("Upgrade: the new master is pid %s", self.child_pid)

    def _child_serves(self) -> None:
        arbiter = self._arbiter
        arbiter.log.info("Upgrade: the new master (pid %s) serves", self.child_pid)
        arbiter.trouble = ""
        if self.automatic:
            arbiter.stop()
        else:
            arbiter.commands.upgraded("", f"the new master, pid {self.child_pid}, serves as well: {self._reexec.said}")

    def withdraws(self, workers: int) -> None:
        """The operator retires our workers: beside a new master they come back when that is lost."""
        if self.child_pid and workers:
            self._withdrawn = workers

    def _child_lost(self, pid: int, reason: str) -> None:
        arbiter, withdrawn = self._arbiter, self._withdrawn
        arbiter.claim.forget_second(pid)
        self._withdrawn = 0
        if arbiter.state is Master.STOPPING:
            arbiter.log.info("The new master (pid %s) has ended", pid)
            return
        if withdrawn and not arbiter.num_workers:
            arbiter.log.warning("The new master is gone: the workers that made way for it come back")
            arbiter.num_workers = withdrawn
        if reason:
            self._backed_out(reason)
            return
        where = arbiter.cfg.directory, arbiter.launched_with
        arbiter.host.examine(arbiter.loop, arbiter.program, *where, self._backed_out)

    def _backed_out(self, reason: str) -> None:
        arbiter = self._arbiter
        arbiter.log.error("Upgrade backed out, this master serves on: %s", reason)
        arbiter.trouble = f"upgrade failed: {reason}"
        arbiter.report()  # systemd knows before whoever waits, and may ask it
        arbiter.commands.upgraded(reason)

    def pass_on_control(self) -> None:
        """Gives the control socket to a new master that serves.

        Before the connections of all workers go: those may be as many as may be on their way at one time.
        """
        if self._reexec.state is State.SERVING and self._reexec.alive:
            control = self._arbiter.control.release()
            if control is not None:
                self._reexec.pass_on(control)

    def pass_on_reload(self) -> bool:
        """Whether a new master that has taken over does the reload that was asked of this one."""
        return self.handed_over and self._reexec.pass_on_reload()

    def before_stop(self) -> None:
        """A stop begins: a new master that serves takes over, any other is dropped if it is ours to drop."""
        if self._reexec.state is State.SERVING and self._reexec.alive:
            self._hand_over()
        elif self._reexec.state is State.BOOTING and self.automatic:
            self._reexec.drop("the service is being stopped")
        self._arbiter.commands.upgraded("the service is being stopped")

    def _hand_over(self) -> None:
        """Makes the new master the main process: first for systemd, then for itself."""
        arbiter = self._arbiter
        arbiter.log.info("Handing over to the new master (pid %s)", self.child_pid)
        arbiter.manager.main_pid(self.child_pid)
        arbiter.commands.upgraded("", f"upgraded, the new master is pid {self.child_pid}: {self._reexec.said}")
        self._reexec.hand_over(arbiter.children.patience())
