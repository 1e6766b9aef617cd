"""The workers of one master: their handles, what they say, and how they end.

Mechanism only. Which worker is forked or retired is decided in decide.py; what a death or a failed boot means for the
service is the business of pool.py, which hears of them through `Events`.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from sdserve import events
from sdserve.arbiter.decide import LIVE, Backoff, Member
from sdserve.arbiter.hang import HangWatch
from sdserve.arbiter.lifecycle import Phase, WorkerEvent
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.worker_handle import WorkerHandle, describe
from sdserve.log import Logger
from sdserve.ops.happenings import OF_WORKER
from sdserve.process.scoreboard import Scoreboard
from sdserve.workers.words import BUSY, CALLS, FAILED, READY, RECYCLE, RETIRE, RETIRING, STACKS, USING, told_by

KILL_AFTER = 1.0  # seconds between ABRT and KILL: time to write the stacks
DEAF_AFTER = 0.75  # seconds after ABRT at which a worker that did nothing is stuck in C code
ENDS_WITHIN = 1.0  # seconds between the end of a worker's channel and that of its process, where it ends
SERVES_FOR = 30.0  # seconds at least that a worker serves which closes its channel: it may be one of many that do so
DRAIN_GRACE = 0.5  # seconds that a worker gets to leave after its graceful time-out


class Events(Protocol):
    """What the pool wants to hear."""

    def worker_ready(self, handle: WorkerHandle) -> None: ...

    def worker_gone(self, handle: WorkerHandle, status: int) -> None: ...

    def worker_decided(self, handle: WorkerHandle, using: str) -> None: ...


def nothing(event: str, text: str, pid: int, slot: int) -> None:
    """Nobody follows."""


class Children:
    """All worker processes that have not been reaped yet, by pid."""

    events: Events  # who hears of what becomes of them

    def __init__(self, loop: Loop, log: Logger, happens: Callable[[str, str, int, int], None] = nothing) -> None:
        self._loop = loop
        self._log = log
        self._happens = happens
        self._hang_watch = HangWatch(loop, self.hung)
        self.scoreboard = Scoreboard()
        self.handles: dict[int, WorkerHandle] = {}
        self.on_busy: Callable[[], None] = lambda: None  # an idle worker has become busy
        self._used_by_gone = 0.0  # when one that has ended was last busy

    def __iter__(self) -> Iterator[WorkerHandle]:
        return iter(list(self.handles.values()))

    def __len__(self) -> int:
        return len(self.handles)

    def members(self) -> list[Member]:
        return [handle.member() for handle in self.handles.values()]

    def of_age(self, age: int) -> WorkerHandle:
        return next(handle for handle in self.handles.values() if handle.age == age)

    def last_use(self) -> float:
        """When a worker was last busy, whether it is still there or not; 0.0 if none was."""
        return max((self._used_by_gone, *(self._last_use(handle) for handle in self)))

    def _last_use(self, handle: WorkerHandle) -> float:
        return self._loop.now() if handle.cell.busy_since else handle.cell.last_busy

    def tell(self, event: str, handle: WorkerHandle, text: str) -> None:
        """Tells who follows what happens: one line, about this worker."""
        self._happens(event, f"worker {handle.pid}: {text}", handle.pid, handle.worker.slot)

    def _advance(self, handle: WorkerHandle, event: WorkerEvent, timeout: float | None = None) -> None:
        """Changes a worker's phase; the new one ends after `timeout` seconds at the latest."""
        before = handle.phase
        handle.advance(event, timeout)
        if handle.phase is not before and event is not WorkerEvent.EXIT:
            self.tell(OF_WORKER[event.value], handle, f"{event.value}, was {before.value}, now {handle.phase.value}")

    def add(self, handle: WorkerHandle) -> None:
        """Takes a forked worker on."""
        self.handles[handle.pid] = handle
        self.tell("worker-boots", handle, f"slot {handle.worker.slot}, generation {handle.generation}, booting")
        self._loop.watch(handle.channel, lambda: self._hear(handle))
        self._loop.watch(handle.pidfd, lambda: self._ended(handle))

    def timeout(self) -> float:
        """For how many seconds, at most, those who were told to leave may still be there."""
        now = self._loop.now()
        return KILL_AFTER + max((h.deadline - now for h in self if h.deadline is not None), default=0.0)

    def retire(self, handle: WorkerHandle, graceful: bool = True) -> None:
        """Tells a worker to finish and leave, or to leave at once; it is killed when it takes longer than it may."""
        timeout = handle.worker.cfg.graceful_timeout if graceful and handle.phase is not Phase.BOOTING else KILL_AFTER
        if handle.worn_at is not None and handle.worn_at <= self._loop.now():
            handle.worn = True  # by max_age: nobody else says so
        self._advance(handle, WorkerEvent.RETIRE, timeout + DRAIN_GRACE)
        if graceful:
            handle.tell(RETIRE)
        handle.send(signal.SIGTERM if graceful else signal.SIGQUIT)
        if handle.stopped:  # it would not hear of it, nor finish (systemd.kill(5) does the same)
            handle.send(signal.SIGCONT)

    def overdue(self, handle: WorkerHandle, phase: Phase) -> None:
        """Ends a worker that let the deadline of its phase pass."""
        if phase is Phase.BOOTING:
            limit = handle.worker.cfg.boot_timeout
            handle.reason = f"it did not boot within {limit:g} seconds (boot_timeout)"
            self._log.event(events.BOOT_TIMEOUT, REASON=handle.reason, **handle.named())
            self._abort(handle)
            return
        if phase is Phase.RETIRING:
            self._log.event(events.WORKER_KILLED, **handle.named())
        self._advance(handle, WorkerEvent.KILL)
        handle.send(signal.SIGKILL)

    def hung(self, handle: WorkerHandle, seconds: float) -> None:
        """Ends a worker whose request takes longer than `timeout`."""
        self._log.event(events.WORKER_TIMEOUT, SECONDS=seconds, **handle.named())
        self._abort(handle)

    def _abort(self, handle: WorkerHandle) -> None:
        handle.worker.aborted = True
        self._advance(handle, WorkerEvent.HANG, KILL_AFTER)
        handle.send(signal.SIGABRT)
        if handle.stopped:  # it hears nothing but this
            handle.send(signal.SIGKILL)
        self._loop.call_at(self._loop.now() + DEAF_AFTER, lambda: self._show_stacks(handle))

    def _show_stacks(self, handle: WorkerHandle) -> None:
        """Has a worker whose interpreter did not come to handle ABRT write where it is stuck."""
        if handle.phase is Phase.ABORTED and self.handles.get(handle.pid) is handle:
            handle.send(STACKS)

    def rest(self) -> bool:
        """Has each idle worker say when it becomes busy, and looks away from it; whether all of them are idle."""
        idle = [self._hang_watch.rest(handle) for handle in self]
        return all(idle)

    def listen(self) -> None:
        """Hears all that workers have said by now, before a judgement that depends on it."""
        for handle in self:
            self._hear(handle)

    def _hear(self, handle: WorkerHandle) -> None:
        knew = handle.mute
        for message in handle.messages():
            self._heed(handle, message)
        if handle.mute and not knew:
            handle.silence = self._loop.call_at(self._loop.now() + ENDS_WITHIN, lambda: self._lives_mute(handle))
            self._hang_watch.busy(handle)
            self._loop.unwatch(handle.channel)  # it would wake us all the time

    def _lives_mute(self, handle: WorkerHandle) -> None:
        """What becomes of a worker that has closed its channel and lives: the application has done it, as a rule.

        One that leaves, or that cannot end yet (a thread in the kernel, a debugger), has a deadline already.
        """
        if handle.phase is Phase.BOOTING:
            handle.reason = "it has closed its channel, and cannot say when it serves"
            self._log.event(events.WORKER_MUTE, WHAT="its boot has failed", **handle.named())
            self._abort(handle)
        elif handle.phase is Phase.SERVING:
            self._log.event(events.WORKER_MUTE, WHAT="is replaced", **handle.named())
            handle.wears_out(SERVES_FOR)

    def _heed(self, handle: WorkerHandle, message: bytes) -> None:
        if message == READY:
            self._advance(handle, WorkerEvent.READY)
            self._hang_watch.serves(handle)
            self.events.worker_ready(handle)
        elif message == BUSY:
            self._hang_watch.busy(handle)
            self.on_busy()
        elif message == RECYCLE:
            handle.worn = True
        elif message == RETIRING:
            handle.acknowledged = True
            if handle.phase in (Phase.SERVING, Phase.ABORTED):  # somebody else told it to; it saves what it can
                handle.asks = True
                self._advance(handle, WorkerEvent.RETIRE, handle.worker.cfg.graceful_timeout + DRAIN_GRACE)
        elif message.startswith(FAILED):
            reason = message[len(FAILED) :].decode(errors="replace").strip()
            told = told_by(signal.SIGABRT)
            if handle.phase is Phase.ABORTED and reason.startswith(told):  # by us, who know why; it may say where
                reason = handle.reason + reason.removeprefix(told)
            handle.reason = reason
        elif message.startswith(CALLS):
            handle.note_calls(message[len(CALLS) :])
        elif message.startswith(USING):
            self.events.worker_decided(handle, message[len(USING) :].decode(errors="replace").strip())

    def _ended(self, handle: WorkerHandle) -> None:
        """Its pidfd is readable. While it cannot be reaped (a tracer comes first, ptrace(2)), it keeps nobody awake."""
        self.reap(handle)
        if self.handles.get(handle.pid) is handle:
            self._loop.look_away(handle.pidfd)

    def reap(self, handle: WorkerHandle) -> None:
        """Reaps a worker whose process has ended; does nothing if it has not."""
        if handle.pid not in self.handles:
            return
        self._hear(handle)  # its last words are why it could not boot
        status = handle.pidfd.reap()
        if status is None:
            return
        del self.handles[handle.pid]
        handle.hang.cancel()
        handle.look.cancel()
        handle.silence.cancel()
        for watched in (handle.channel, handle.pidfd):
            self._loop.unwatch(watched)
            with suppress(OSError):  # it is closed, whatever close(2) says
                watched.close()
        before = handle.phase
        handle.killed_from_outside = before in LIVE and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        self._advance(handle, WorkerEvent.EXIT)
        self._used_by_gone = max(self._used_by_gone, self._last_use(handle))
        self.scoreboard.give_back(handle.cell)
        self._log_end(handle, before, status)
        self.events.worker_gone(handle, status)

    def note_stops(self) -> None:
        """Looks for workers that were stopped or continued: nothing else tells of a SIGSTOP."""
        for handle in self.handles.values():
            if handle.note_stops():
                what = "stopped" if handle.stopped else "continued"
                self._log.event(events.WORKER_PAUSED, WORKER_PID=handle.pid, WHAT=what)
                self.tell("worker-stopped", handle, what)

    def _log_end(self, handle: WorkerHandle, phase: Phase, status: int) -> None:
        end = describe(status, ordered=phase is Phase.KILLED or handle.worker.aborted)
        done = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        if not done and (phase is Phase.SERVING or (phase is Phase.BOOTING and not handle.reason)):
            self._log.event(events.WORKER_DIED, END=end, **handle.named())
        else:
            log = self._log.debug if done else self._log.info
            log("Worker (pid:%s) %s", handle.pid, end)
        self.tell("worker-ended", handle, end)


def backoff_after(backoff: Backoff, handle: WorkerHandle, now: float) -> Backoff:
    """The back-off after a worker ended: only deaths that nobody ordered count."""
    if handle.retired:
        return backoff
    return backoff.after_death(handle.born, handle.served(), now, outside=handle.killed_from_outside)
