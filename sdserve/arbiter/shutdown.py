"""How a master ends: because it was told to, because nothing can boot, or because its own loop broke.

The first two are states (`stopping`, or `handing over` where a new master serves) in which signals are heard on. The
last resort does without the loop: no worker may be left behind that nobody supervises.
"""

import signal
from logging import ERROR

from sdserve import events
from sdserve.arbiter.lifecycle import LEAVING, Master, MasterEvent
from sdserve.arbiter.new_master import NewMaster
from sdserve.arbiter.old_master import OldMaster
from sdserve.arbiter.policy import Parts, Policy
from sdserve.arbiter.reload import Reload
from sdserve.errors import SdserveError
from sdserve.systemd.notify import is_main_process

QUIT_TIMEOUT = 2.0  # seconds between QUIT and KILL when the loop does not turn any more
KILL_TIMEOUT = 5.0  # seconds until the kernel has ended who was killed; a process in state D may take for ever


class Shutdown(Policy):
    """The end of one master."""

    def __init__(self, parts: Parts, reload: Reload, old_master: OldMaster, new_master: NewMaster) -> None:
        super().__init__(parts)
        self._reload = reload
        self._old_master = old_master
        self._new_master = new_master

    def begin(self, graceful: bool, restart: bool) -> None:
        """Begins to stop; a second call may turn a graceful stop into a quick one.

        `restart`: systemd will start the service again at once, and keeps what is in its descriptor store until then.
        """
        service = self._service
        if service.state is Master.DOWN:
            return
        first = service.state not in LEAVING
        if first:
            self._reload.abandon()
        hands_over = first and self._old_master.can_hand_over and not restart
        service.advance(MasterEvent.HAND_OVER if hands_over else MasterEvent.STOP)
        service.goal = service.goal.replace(stopping=True)
        if not hands_over:
            self._old_master.take_along(graceful, restart)
        if not service.successor_serves:
            service.adoption.ends(restart=restart)
        self._pool.tell_successors()
        if not graceful:
            for handle in service.children:
                service.children.retire(handle, graceful=False)
        if first:
            self._give_away()
        self._new_master.ends(restart)

    def _give_away(self) -> None:
        """Gives what this master holds to a new one, or to nobody."""
        handing_over = self._service.state is Master.HANDING_OVER
        # The workers hear of it before systemd, so whoever waits for the new main process meets no old worker.
        self._take_all(
            "hand-over" if handing_over else "stop",
            *([self._old_master.pass_on_control] if handing_over else []),
            *([] if handing_over else [lambda: self._addresses.shut(self._service.listeners)]),
            self._pool.manage,
            *(self._old_master.hand_over() if handing_over else []),
            lambda: self._commands.upgraded("the service is being stopped"),
            self._commands.drain.ends,
            self._reload.pass_on,
            self._manager.stopping,
            lambda: self._addresses.end(self._service.listeners),
            self._observation.renew,  # the one of before has copies of them
        )

    def settle(self) -> None:
        """Ends when the last worker is gone, and no other master is left that this one has to outlive."""
        waits = self._new_master.parent_drains or self._old_master.waits
        if not self._service.children and not waits:
            self._service.advance(MasterEvent.EMPTY)

    def because(self, reason: str, error: SdserveError) -> None:
        """Stops at once because of an error."""
        service = self._service
        service.log.event(events.FAILED, REASON=reason, EXIT_STATUS=error.exit_code)
        service.exit_status = error.exit_code
        service.trouble = reason
        self._new_master.failed(reason)
        self.begin(graceful=False, restart=False)
        self._manager.notifier.failed(reason, error.errno)

    def complete(self) -> None:
        """The last things of an orderly end."""
        service = self._service
        status = service.exit_status
        level = ERROR if status else None
        service.log.event(events.STOPPED, level=level, MASTER=service.master_name, EXIT_STATUS=status)
        self._control.close()
        self._observation.close()
        self._claim.end()
        self._hooks.call("on_exit")
        self._end_leftovers()

    def _end_leftovers(self) -> None:
        """Ends the programs that the application left running, as the last process of a unit that is ours.

        With ExitType=cgroup systemd waits for them, and for what ignores TERM until TimeoutStopSec= is over. Where an
        old master died and left this one alone, its workers still finish requests, with what those run, and an
        ExecReload= waits for them: systemd kills them once that has ended.
        """
        service = self._service
        is_last = not (service.shares_listeners or self._new_master.left_alone)
        if not is_last or not is_main_process(service.launched_with, service.pid):
            return
        try:
            for pid in self._host.end_leftovers():
                service.log.info("Process %s was left running and is told to end", pid)
        except OSError as error:  # systemd ends them, too, only later
            service.log.warning("cannot look for processes that were left running: %s", error)

    def crash(self, reason: str, exit_status: int, errno: int) -> None:
        """Ends everything at once, without the loop."""
        service = self._service
        service.exit_status = exit_status
        if service.state is not Master.DOWN:  # else on_exit failed, the last of all
            service.advance(MasterEvent.CRASH)
        left = list(service.children)
        for signum, timeout in ((signal.SIGQUIT, QUIT_TIMEOUT), (signal.SIGKILL, KILL_TIMEOUT)):
            for handle in left:
                handle.send(signum)
            left = self._host.await_ends(left, timeout)
        self._addresses.close(service.listeners)
        self._claim.release()
        self._end_leftovers()
        self._new_master.failed(reason)
        self._manager.notifier.failed(reason, errno)
