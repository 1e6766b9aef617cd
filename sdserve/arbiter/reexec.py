"""The old master's side of USR2: a new master by re-exec.

It forks twice, so that the new master is a child of the service manager: systemd supervises only its own children
properly, and an init reaps it elsewhere. The new master gets the listeners at 3 and up as if from socket activation,
and a line back (process/handover.py). What follows from its answers is decided in upgrade.py.
"""

import errno
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from sdserve.arbiter import signals
from sdserve.arbiter.lifecycle import UPGRADE, Upgrade, UpgradeEvent, advance, allows
from sdserve.arbiter.loop import Deadline, Loop
from sdserve.log import Logger
from sdserve.process.adoption import AdoptionQueue
from sdserve.process.handover import VARIABLE, Handover
from sdserve.process.listeners import Listener, describe, pass_on
from sdserve.process.pidfd import PidFd
from sdserve.systemd import activation

EXEC_FAILED = 127


class Reexec:
    """The old master's side: at most one new master at a time.

    `on_ready` is called when the new master serves, `on_lost` with the reason when there is none any more.
    """

    def __init__(self, loop: Loop, log: Logger, on_ready: Callable[[], None], on_lost: Callable[[str], None]) -> None:
        self._loop = loop
        self._log = log
        self._on_ready = on_ready
        self._on_lost = on_lost
        self.state = Upgrade.NONE
        self.pid = 0
        self.dropped = False
        self._line: Handover | None = None
        self._process: PidFd | None = None
        self._deadline: Deadline | None = None
        self._reason = ""

    def start(
        self, listeners: Sequence[Listener], queue: AdoptionQueue, launch: "Launch", patience: float | None
    ) -> None:
        """Launches the new master, which must serve within `patience` seconds (None: whenever it does).

        Raises OSError when there is no room for another process.
        """
        ours, theirs = Handover.pair()
        ours.send("hello", fds=queue.fds(), listeners=[describe(listener) for listener in listeners])
        try:
            pid = _fork_twice(lambda: launch.execute(listeners, theirs))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.advance(UpgradeEvent.REEXEC)
        self.pid = pid
        self.dropped = False
        self._reason = ""
        self._line = ours
        self._loop.watch(ours, self._hear)
        try:
            self._process = PidFd(pid)
        except ProcessLookupError:
            self._lose("it ended at once")
            return
        self._loop.watch(self._process, self._ended)
        if patience is not None:
            self._deadline = self._loop.call_at(
                time.monotonic() + patience, lambda: self.drop("it did not serve in time")
            )

    def hand_over(self, control: Listener | None) -> None:
        """Tells the new master that it is the main process now, and passes the control socket on."""
        assert self._line is not None
        self.advance(UpgradeEvent.HAND_OVER)
        self._cancel_deadline()
        if control is None:
            self._line.send("main")
            return
        self._line.send("main", fds=[control.fileno()], control=describe(control))
        control.close()

    def drop(self, reason: str) -> None:
        """Ends a new master that is not the main process yet: TERM now, KILL if it stays."""
        if self._process is None or self.state is Upgrade.HANDED_OVER:
            return
        self._reason = self._reason or reason
        self.dropped = True
        self._process.send(signal.SIGTERM)
        self._cancel_deadline()
        self._deadline = self._loop.call_at(time.monotonic() + 5.0, self._kill)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.send(signal.SIGKILL)

    def _hear(self) -> None:
        while self._line is not None and (message := self._line.receive()) is not None:
            if message["type"] == "ready" and allows(UPGRADE, self.state, UpgradeEvent.READY):
                self.advance(UpgradeEvent.READY)
                self._cancel_deadline()
                self._on_ready()
            elif message["type"] == "failed":
                self._reason = str(message.get("reason", ""))
            elif message["type"] == "gone":
                self._loop.unwatch(self._line)  # its end, or its exec into something else, shows at the pidfd
                return

    def _ended(self) -> None:
        self._hear()
        served = self.state is not Upgrade.BOOTING
        self._lose(self._reason or ("it ended" if served else "it ended before it served"))

    def _lose(self, reason: str) -> None:
        for watched in (self._line, self._process):
            if watched is not None:
                self._loop.unwatch(watched)
                watched.close()
        self._line = self._process = None
        self._cancel_deadline()
        was = self.state
        self.advance(UpgradeEvent.LOST)
        if was is not Upgrade.HANDED_OVER:
            self.pid = 0
            self._on_lost(reason)

    def advance(self, event: UpgradeEvent) -> None:
        before = self.state
        self.state = advance(UPGRADE, self.state, event)
        self._log.trace("upgrade to %s: %s, was %s, now %s", self.pid, event.value, before.value, self.state.value)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Launch:
    """How this program was started, kept from its start: arguments, directory, environment.

    `extra` gives the environment that depends on the new pid (notify socket, watchdog), `pre_exec` is the hook.
    """

    def __init__(
        self,
        directory: str,
        environ: Mapping[str, str],
        extra: Callable[[int], Mapping[str, str]],
        pre_exec: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._environ = environ
        self._extra = extra
        self._pre_exec = pre_exec

    def execute(self, listeners: Sequence[Listener], line: Handover) -> NoReturn:
        """Becomes the new master, in the forked child. Reports and ends if that cannot be done."""
        try:
            self._pre_exec()
            signals.ready_for_exec()
            os.chdir(self._directory)
            [line_fd] = pass_on([listener.fileno() for listener in listeners], [line.fileno()])
            pid = os.getpid()
            environ = {
                **{name: value for name, value in self._environ.items() if name not in activation.VARIABLES},
                **self._extra(pid),
                **activation.variables(pid, [listener.name for listener in listeners]),
                VARIABLE: str(line_fd),
            }
            os.execvpe(sys.orig_argv[0], sys.orig_argv, environ)
        except BaseException as error:  # noqa: BLE001 - nothing above this frame may run in the child
            traceback.print_exc()
            line.send("failed", reason=f"cannot execute {sys.orig_argv[0]}: {error}")
        finally:
            os._exit(EXEC_FAILED)


def _fork_twice(child: Callable[[], NoReturn]) -> int:
    """Runs `child` in a grandchild that is reparented to the service manager (or init) first; returns its pid.

    Raises OSError when there is no room for another process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    signals.block_all()
    with os.fdopen(read, "rb") as told:
        try:
            middle = os.fork()
            if middle == 0:
                _middle(write, child)
        finally:
            os.close(write)
            signals.unblock_all()
        pid = told.read()
    os.waitpid(middle, 0)
    if not pid:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return int(pid)


def _middle(write: int, child: Callable[[], NoReturn]) -> NoReturn:
    try:
        middle = os.getpid()
        pid = os.fork()
        if pid:
            os.write(write, str(pid).encode())
            os._exit(0)
        os.close(write)
        _wait_for_reparenting(middle)
        child()
    finally:  # whatever happens, neither of the two may go on as a second master
        os._exit(EXEC_FAILED)


def _wait_for_reparenting(middle: int) -> None:
    """Returns when this process is no child of `middle` any more: reparenting comes before the pidfd's news."""
    while os.getppid() == middle:
        try:
            process = PidFd(middle)
        except ProcessLookupError:
            continue
        select.select([process], [], [])
        process.close()
