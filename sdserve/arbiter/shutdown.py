"""How a master ends: because it was told to, because nothing can boot, or because its own loop broke.

The first two are the state `stopping`, in which signals are heard on. The last resort does without the loop: no worker
may be left behind that nobody supervises.
"""

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from sdserve.arbiter.lifecycle import Master, MasterEvent
from sdserve.errors import SdserveError
from sdserve.systemd.notify import is_main_process

if TYPE_CHECKING:
    from sdserve.arbiter.arbiter import Arbiter

QUIT_PATIENCE = 2.0  # seconds between QUIT and KILL when the loop does not turn any more
KILL_PATIENCE = 5.0  # seconds until the kernel has ended who was killed; a process in state D may take for ever


class Shutdown:
    """The end of one master."""

    def __init__(self, arbiter: "Arbiter") -> None:
        self._arbiter = arbiter

    def begin(self, graceful: bool, restart: bool) -> None:
        """Begins to stop; a second call may turn a graceful stop into a quick one.

        `restart`: systemd will start the service again at once, and keeps what is in its descriptor store till then.
        """
        arbiter = self._arbiter
        if arbiter.state is Master.DOWN:
            return
        first = arbiter.state is not Master.STOPPING
        if first:
            arbiter.reloading.abandon()
        arbiter.advance(MasterEvent.STOP)
        arbiter.goal = replace(arbiter.goal, stopping=True)
        if not arbiter.upgrade.child_serves:
            arbiter.adoption.ends(restart=restart)
        arbiter.pool.tell_successors()
        if not graceful:
            for handle in arbiter.children:
                arbiter.children.retire(handle, graceful=False)
        if first:
            arbiter.upgrade.pass_on_control()
            # The workers hear of it before systemd, so who waits for the new main process meets no old worker.
            arbiter.pool.manage()
            arbiter.upgrade.before_stop()
            arbiter.reloading.pass_on()
            arbiter.manager.stopping(arbiter.status().line())
            self._close_listeners()

    def because(self, reason: str, error: SdserveError) -> None:
        """Stops at once because of an error."""
        arbiter = self._arbiter
        arbiter.log.error("%s", reason)
        arbiter.exit_status = error.exit_code
        arbiter.trouble = reason
        arbiter.upgrade.failed(reason)
        self.begin(graceful=False, restart=False)
        arbiter.manager.failed(reason, error.errno)

    def complete(self) -> None:
        """The last things of an orderly end."""
        arbiter = self._arbiter
        log = arbiter.log.info if arbiter.exit_status == 0 else arbiter.log.error
        log("Shutting down: %s", arbiter.master_name)
        arbiter.control.close()
        arbiter.claim.end()
        arbiter.hook("on_exit")
        self._end_leftovers()

    def _end_leftovers(self) -> None:
        """Ends the programs that the application left running, as the last process of a unit that is ours.

        With ExitType=cgroup systemd waits for them, and for what ignores TERM till the end of TimeoutStopSec=.
        """
        arbiter = self._arbiter
        if not is_main_process(arbiter.launched_with, arbiter.pid) or arbiter.upgrade.shares_listeners:
            return
        try:
            for pid in arbiter.host.end_leftovers():
                arbiter.log.info("Process %s was left running and is told to end", pid)
        except OSError as error:  # systemd ends them, too, only later
            arbiter.log.warning("cannot look for processes that were left running: %s", error)

    def crash(self, reason: str, exit_status: int, errno: int) -> None:
        """Ends everything at once, without the loop."""
        arbiter = self._arbiter
        arbiter.exit_status = exit_status
        if arbiter.state is not Master.DOWN:  # else on_exit failed, the last of all
            arbiter.advance(MasterEvent.CRASH)
        self._end_workers()
        self._close_listeners()
        arbiter.claim.release()
        self._end_leftovers()
        arbiter.upgrade.failed(reason)
        arbiter.manager.failed(reason, errno)

    def _end_workers(self) -> None:
        host, left = self._arbiter.host, list(self._arbiter.children)
        for signum, patience in ((signal.SIGQUIT, QUIT_PATIENCE), (signal.SIGKILL, KILL_PATIENCE)):
            for handle in left:
                handle.send(signum)
            left = host.await_ends(left, patience)

    def _close_listeners(self) -> None:
        """Lets go of the listeners; a Unix socket's file is removed by the last master that has it."""
        for listener in self._arbiter.LISTENERS:
            if not self._arbiter.upgrade.shares_listeners:
                listener.unlink()
            listener.close()
