"""USR2, as the old master: it executes a new one, and hands over once that serves.

It does so by itself (`upgrade=auto`), or waits for the operator (`manual`), whose TERM then hands over. A new master
that fails or is too slow is dropped, and this one serves on.
"""

from collections.abc import Callable, Sequence
from functools import partial

from sdserve import events
from sdserve.arbiter import decide
from sdserve.arbiter.lifecycle import AFTER_WORKERS, LEAVING, Master, Upgrade
from sdserve.arbiter.policy import Parts, Policy
from sdserve.arbiter.reexec import Reexec
from sdserve.arbiter.successor import Successor
from sdserve.errors import no_room
from sdserve.process.counters import UPGRADES
from sdserve.process.listeners import Listener
from sdserve.process.program import Program
from sdserve.process.rights import NOT_NOW
from sdserve.systemd import journal
from sdserve.systemd.notify import deaf_supervisor, is_main_process, main_process

SLACK = 30.0  # seconds that a new master has beyond its own boot_timeout


class OldMaster(Policy):
    """This master as the old one of an upgrade. `program` is how it was executed itself.

    `stop` is called when the new master takes over by itself: what follows is a stop that hands over.
    """

    def __init__(self, parts: Parts, program: Program, stop: Callable[[], None]) -> None:
        super().__init__(parts)
        self._program = program
        self._stop = stop
        heard = self._successor_serves, self._successor_ends, self._successor_lost
        self._successor = Successor(self._service, self._host, *heard)
        self._again = False
        self._withdrawn = 0  # how many workers retired to let a new master serve alone

    @property
    def automatic(self) -> bool:
        """Whether a new master takes over by itself once it serves; the default is yes under systemd."""
        chosen = self._service.cfg.upgrade
        if chosen is None:
            return self._service.systemd or self._manager.notifier.enabled
        return chosen == "auto"

    @property
    def can_hand_over(self) -> bool:
        """Whether there is a new master that serves and lives."""
        return self._service.upgrade is Upgrade.SERVING and self._successor.alive

    @property
    def refusal(self) -> str:
        """Why no new master can be executed now, or ""."""
        service = self._service
        if service.pid == 1:
            return "This is PID 1 of a container, which ends with it: replace the container instead."
        if service.reexec_pid:
            return "Child exists."
        if service.master_pid:
            return "Parent exists."
        if service.draining:
            return "The service drains, which a new master would not know of: sdservectl undrain takes it back."
        if deaf_supervisor(service.launched_with, service.pid):
            return "systemd could not be told of a new main process: the unit needs Type=notify."
        return "" if service.state in (Master.RUNNING, Master.RELOADING) else f"The server is {service.state.value}."

    def awaited(self, parent: str) -> str:
        """What an upgrade that is asked for now has to wait for, in words; "" if it begins at once, or never.

        parent: how long an old master still drains, in words; "" without one
        """
        service = self._service
        return "" if service.reexec_pid or service.state in (*LEAVING, Master.DOWN) else parent

    def begin(self, parent: str = "") -> None:
        """Executes a new master, at once or after what it has to wait for, unless an upgrade is under way already."""
        service = self._service
        if awaited := self.awaited(parent):
            service.log.info("USR2: %s", awaited)
            self._again = True
        elif service.state is Master.STARTING and not service.master_pid:
            self._again = True
        elif self.refusal:
            service.log.warning("USR2 signal ignored. %s", self.refusal)
        else:
            self._execute()

    def catch_up(self) -> None:
        """Begins the upgrade that was asked for too early."""
        if self._again and not self._service.master_pid:
            self._again = False
            if refusal := self.refusal:  # before it begins: then it is no reason any more
                self._commands.upgraded(f"no upgrade now: {refusal}")
            self.begin()

    def _execute(self) -> None:
        service, manager, host = self._service, self._manager, self._host
        reexec = Reexec(
            self._program,
            service.cfg.directory,
            service.launched_with,
            lambda pid: {
                **journal.variables(host.environ),
                **manager.notifier.variables(),
                **manager.watchdog.variables(pid),
                **main_process(service.launched_with, service.pid, pid),
            },
            self._hooks.pre_exec(),
        )
        # Its own boot time-out ends it first, as a rule, and says why.
        boot = service.cfg.boot_timeout
        timeout = boot + SLACK if boot else None
        try:
            passed = self._addresses.pass_all(), service.adoption.queue, service.counters.shared
            self._successor.start(*passed, reexec, timeout)
        except OSError as error:
            self._successor_lost(0, no_room("a new master", error))
            return
        service.log.event(events.UPGRADE_STARTED, NEW_MASTER_PID=service.reexec_pid)

    def withdraws(self, workers: int) -> None:
        """The operator retires our workers: beside a new master they come back when that is lost."""
        if self._service.reexec_pid and workers:
            self._withdrawn = workers

    def _successor_serves(self) -> None:
        service = self._service
        service.log.info("Upgrade: the new master (pid %s) serves", service.reexec_pid)
        service.trouble = ""
        if self.automatic:
            self._stop()
        else:
            done = f"the new master, pid {service.reexec_pid}, serves as well: {self._successor.said}"
            self._commands.upgraded("", done)

    def _successor_ends(self, restart: bool) -> None:
        """Whoever adopts our connections leaves as well, or has left: clients that ask again get a last answer."""
        service = self._service
        service.log.info("The new master (pid %s) is being stopped", service.reexec_pid)
        if service.state in LEAVING:
            service.adoption.ends(restart=restart)
        self._pool.tell_successors()

    def _successor_lost(self, pid: int, reason: str) -> None:
        service, withdrawn = self._service, self._withdrawn
        self._claim.forget_second(pid)
        self._addresses.alone()
        self._withdrawn = 0
        if service.state in LEAVING:
            service.log.info("The new master (pid %s) has ended", pid)
            return
        if withdrawn and not service.goal.size:
            service.log.warning("The new master is gone: the workers that made way for it come back")
            self._pool.resize(withdrawn)
        if reason:
            self._backed_out(reason)
            return
        where = service.cfg.directory, service.launched_with
        self._host.examine(service.loop, self._program, *where, self._backed_out)

    def _backed_out(self, reason: str) -> None:
        service = self._service
        service.log.event(events.UPGRADE_FAILED, REASON=reason)
        service.trouble = f"upgrade failed: {reason}"
        service.came_to(service.trouble)
        service.cell.add(UPGRADES + 1)
        self._manager.report()  # systemd knows before whoever waits, and may ask it
        self._commands.upgraded(reason)

    def pass_on_control(self) -> None:
        """Gives the control socket to the new master.

        Before the connections of all workers go: those may be as many as may be on their way at one time.
        """
        self._observation.release()
        control = self._control.release()
        if control is not None:
            self._successor.pass_on(control)
        self._commands.passed_on()

    def hand_over(self) -> Sequence[Callable[[], None]]:
        """The steps that make the new master the main process: for systemd, for itself, for those who wait for it.

        It may die meanwhile, which the loop will hear.
        """
        return self._tell_systemd, self._tell_successor, self._tell_who_waits

    def _tell_systemd(self) -> None:
        if self.can_hand_over:
            pid = self._service.reexec_pid
            self._service.log.event(events.HANDED_OVER, NEW_MASTER_PID=pid)
            self._manager.pass_to(pid, self._successor)

    def _tell_successor(self) -> None:
        if self.can_hand_over:  # it gets all that is open here: it does the reload that this one does not finish
            heard, service = not self._manager.main.is_owed, self._service
            self._pass_along([*service.listeners, *service.observed], partial(self._successor.hand_over, heard))

    def _tell_who_waits(self) -> None:
        if self._service.handed_over:
            self._service.cell.add(UPGRADES)
            done = f"upgraded, the new master is pid {self._service.reexec_pid}: {self._successor.said}"
            self._commands.upgraded("", done)

    def _pass_along(self, listeners: Sequence[Listener], say: Callable[[Sequence[Listener]], bool]) -> bool:
        """Says something to the new master, with those of the listeners that it has not got yet, or without, where
        that cannot be done now. False if it has gone. Raises OSError."""
        opened = self._addresses.unshared(listeners)
        try:
            said = say(opened)
        except OSError as error:
            if error.errno not in NOT_NOW:
                raise
            for each in opened:
                self._service.log.warning("%s cannot be passed to the new master: %s", each, error.strerror)
            opened = []
            said = say(opened)
        if said:
            self._addresses.share(opened)
        return said

    def take_along(self, graceful: bool, restart: bool) -> None:
        """This master stops and does not hand over, or has done so: the new one stops as well if that is meant.

        RTMIN means the service, and so does what systemd sends while it may not have heard of the new main process: a
        unit that is being stopped keeps the one that it has. Otherwise the operator means this master alone, except for
        a new one that boots and would take over by itself.
        """
        upgrade = self._service.upgrade
        if upgrade is Upgrade.BOOTING and (self.automatic or restart):
            self._successor.drop("the service is being stopped")
        elif self._manager.main.may_be_ours or (upgrade is Upgrade.SERVING and restart):
            self._successor.stop(graceful, restart, self._service.cfg.graceful_timeout + AFTER_WORKERS)
            if self._service.state is Master.HANDING_OVER:
                self._manager.stays_main()

    @property
    def waits(self) -> bool:
        """Whether a new master that was dropped, or stops with this one, has still to end; or systemd has still to hear
        of one that took over, which it would end with this one."""
        is_main = is_main_process(self._service.launched_with, self._service.pid)
        return self._successor.ends_first or (is_main and self._manager.main.is_owed)

    def bring_along(self) -> None:
        """A reload has succeeded here, and was asked for after the new master began to boot: that has to follow it.

        It takes over when it has: an upgrade does not undo what a reload has brought.
        """
        service, cfg = self._service, self._service.cfg
        limit = decide.reload_limit(service.goal, cfg.boot_timeout, cfg.graceful_timeout)
        try:
            told = self._pass_along(service.listeners, partial(self._successor.bring_along, limit))
        except OSError as error:
            self._successor.drop(f"it cannot be told to reload as well: {error.strerror}")
            return
        if told:
            service.log.info("Upgrade: the new master (pid %s) has to reload, too", service.reexec_pid)

    def pass_on_reload(self) -> bool:
        """Whether a new master that has taken over does the reload that was asked of this one."""
        return self._service.handed_over and self._successor.pass_on_reload()
