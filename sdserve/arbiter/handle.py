"""The master's view of one worker: the process, the line to it, and the phase of its life.

The worker object that hooks see is made before the fork and stays here as the master's copy; the handle adds what only
the master needs. Phases change through `advance` alone.
"""

import os
import random
import signal
import socket
import time
from typing import TYPE_CHECKING

from sdserve.arbiter.lifecycle import WORKER, Phase, WorkerEvent, advance
from sdserve.arbiter.pool import Member
from sdserve.process.pidfd import PidFd
from sdserve.process.scoreboard import REQUESTS, Cell
from sdserve.status import WorkerStatus

if TYPE_CHECKING:
    from sdserve.workers.base import Worker


class Handle:
    """One worker process. `deadline` (monotonic seconds) ends the present phase if nothing else does."""

    def __init__(self, worker: "Worker", pid: int, channel: socket.socket, cell: Cell, boot_timeout: float) -> None:
        self.worker = worker
        self.pid = pid
        self.pidfd = PidFd(pid)
        self.channel = channel
        self.cell = cell
        self.phase = Phase.BOOTING
        self.ended_in: Phase | None = None  # the phase in which it ended
        self.deadline: float | None = time.monotonic() + boot_timeout if boot_timeout else None
        self.serving_since: float | None = None
        self.worn_at: float | None = None  # when it has served for long enough (max_age)
        self.worn = False
        self.stopped = False
        self.heeded = False  # it has said that it takes no more connections
        self.reason = ""  # why it cannot boot, in its own words

    @property
    def age(self) -> int:
        return self.worker.age

    @property
    def generation(self) -> int:
        return self.worker.generation

    def member(self) -> Member:
        """The worker as the decisions see it."""
        return Member(
            self.worker.age,
            self.worker.slot,
            self.worker.generation,
            self.phase,
            self.deadline,
            self.worn,
            self.worn_at,
            self.stopped,
        )

    def advance(self, event: WorkerEvent, patience: float | None = None) -> None:
        """Changes the phase; the new one ends after `patience` seconds at the latest."""
        before = self.phase
        if event is WorkerEvent.READY and before is not Phase.BOOTING:
            return  # it said so before it heard that it should leave
        self.phase = advance(WORKER, self.phase, event)
        self.deadline = None if patience is None else time.monotonic() + patience
        if event is WorkerEvent.READY:
            self.serving_since = time.monotonic()
            self.worn_at = worn_at(self.serving_since, self.worker.cfg.max_age)
        if before is not self.phase:
            self.worker.log.trace(
                "worker %s: slot %s, generation %s: %s, now %s",
                self.pid,
                self.worker.slot,
                self.worker.generation,
                event.value,
                self.phase.value,
            )

    def send(self, signum: int) -> None:
        """Sends a signal; nothing happens if the process has ended and only waits to be reaped."""
        self.pidfd.send(signum)

    def messages(self) -> list[bytes]:
        """All that the worker said since the last call."""
        said: list[bytes] = []
        while True:
            try:
                message = self.channel.recv(65536)
            except (BlockingIOError, ConnectionResetError):
                return said
            if not message:
                return said
            said.append(message)

    def reap(self) -> int | None:
        """The wait status (waitpid(2)) if the process has ended."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return status if pid else None

    def note_stops(self) -> None:
        """Looks whether the process was stopped (SIGSTOP, a tracer) or goes on."""
        while True:
            try:
                change = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            except ChildProcessError:  # it has ended
                return
            if change is None or change.si_pid == 0:
                return
            self.stopped = change.si_code != os.CLD_CONTINUED

    def stop_deadline(self, timeout: float) -> None:
        """A stopped worker may stay so for `timeout` seconds (0: for ever) while it should serve."""
        if self.phase is Phase.SERVING:
            self.deadline = time.monotonic() + timeout if self.stopped and timeout else None

    def status(self, now: float) -> WorkerStatus:
        """The worker as the scoreboard shows it at `now` (monotonic seconds)."""
        since = self.cell.busy_since
        return WorkerStatus(
            pid=self.pid,
            slot=self.worker.slot,
            generation=self.worker.generation,
            phase=self.phase.value,
            requests=self.cell.word(REQUESTS),
            busy=now - since if since else None,
        )

    def served(self) -> float | None:
        """For how many seconds it has served, None if it never did."""
        return None if self.serving_since is None else time.monotonic() - self.serving_since


def worn_at(serving_since: float, max_age: float) -> float | None:
    """When a worker has served for `max_age` seconds (0: never), and a random tenth more: never all in step."""
    return serving_since + max_age * random.uniform(1.0, 1.1) if max_age else None


def describe(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        try:
            name = signal.Signals(os.WTERMSIG(status)).name
        except ValueError:
            name = f"signal {os.WTERMSIG(status)}"
        return f"was sent {name}" + ("! Perhaps out of memory?" if name == "SIGKILL" else "!")
    return f"exited with code {os.WEXITSTATUS(status)}"
