"""Executing this program again, as USR2 asks: the original command line in its original directory and environment.

It forks twice, so that the new master is a child of the service manager: systemd supervises only its own children
properly, and an init reaps it elsewhere. The new master gets the listeners at 3 and up as if from socket activation,
and a connection back (process/handover.py).
"""

import errno
import os
import signal
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from sdserve.arbiter import signals
from sdserve.errors import call_hook
from sdserve.immutable import Immutable
from sdserve.process import output
from sdserve.process.handover import VARIABLE, Handover
from sdserve.process.listeners import Listener, pass_on
from sdserve.process.pidfd import Child, PidFd
from sdserve.process.program import Program
from sdserve.systemd import activation

EXEC_FAILED = 127
FORK_LIMIT = 5.0  # seconds until both processes must have been forked
GO = b"go"


class Reexec(Immutable):
    """How this program was started, kept from its start: path and arguments, directory, environment.

    `extra` gives the environment that depends on the new pid (notify socket, watchdog), `pre_exec` is the hook.
    """

    program: Program
    directory: str
    environ: Mapping[str, str]
    extra: Callable[[int], Mapping[str, str]]
    pre_exec: Callable[[], object]

    def execute(self, listeners: Sequence[Listener], handover: Handover) -> NoReturn:
        """Becomes the new master, in the forked child. Reports and ends if that cannot be done."""
        try:
            call_hook("pre_exec", self.pre_exec)
            signals.ready_for_exec()
            os.chdir(self.directory)
            [handover_fd] = pass_on([listener.fileno() for listener in listeners], [handover.fileno()])
            pid = os.getpid()
            environ = {
                **{name: value for name, value in self.environ.items() if name not in activation.VARIABLES},
                **self.extra(pid),
                **activation.variables(pid, [listener.name for listener in listeners]),
                VARIABLE: str(handover_fd),
            }
            os.execvpe(self.program.path, self.program.argv, environ)
        except OSError as error:
            handover.send("failed", reason=self._explained(error))
        except BaseException as error:  # noqa: BLE001 - nothing above this frame may run in the child
            handover.send("failed", reason=str(error) or type(error).__name__)
            with suppress(OSError):
                traceback.print_exc()
        finally:
            os._exit(EXEC_FAILED)

    def _explained(self, error: OSError) -> str:
        path = self.program.path
        if error.errno == errno.ENOENT and error.filename in (None, path) and os.path.exists(path):
            return f"cannot execute {path}: the interpreter that its first line names is not there"
        step = "enter" if error.filename == self.directory else "execute"
        return f"cannot {step} {error.filename or path}: {error.strerror}"


def fork_twice(child: Callable[[], NoReturn]) -> PidFd:
    """Runs `child` in a grandchild that is reparented to the service manager (or init) first; returns its pidfd.

    It waits for our word, which comes when it is reparented and we have that: a new master that nobody hears of would
    serve for ever. Raises OSError when there is no room for another process, or for its pidfd: `child` does not run.
    """
    output.flush_all()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            signals.block_all()
            try:
                middle = os.fork()
                if middle == 0:
                    _middle(ours, theirs, child)
            finally:
                signals.unblock_all()
        pid = _await_middle(Child.forked(middle), ours)
        if not pid:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        process = PidFd(int(pid))
        try:
            ours.send(GO)
        except OSError:
            process.close()
            raise
        return process


def _await_middle(middle: Child, told: socket.socket) -> bytes:
    """What it said: the new master's pid, b"" if it could not fork. Raises OSError when it hangs (register_at_fork)."""
    in_time = middle.ended(FORK_LIMIT)
    if not in_time:
        middle.send(signal.SIGKILL)
        middle.ended(FORK_LIMIT)
    middle.reap()
    middle.close()
    if not in_time:
        raise OSError(errno.ETIMEDOUT, f"a forked process hung for {FORK_LIMIT:g} seconds")
    try:
        return told.recv(32, socket.MSG_DONTWAIT)
    except BlockingIOError:  # it was killed, and its child has the other end
        return b""


def _middle(theirs: socket.socket, ours: socket.socket, child: Callable[[], NoReturn]) -> NoReturn:
    try:
        theirs.close()
        pid = os.fork()
        if pid:
            ours.send(str(pid).encode())
            os._exit(0)
        if ours.recv(len(GO)):
            ours.close()
            child()
    finally:  # whatever happens, neither of the two may go on as a second master
        os._exit(EXEC_FAILED)
