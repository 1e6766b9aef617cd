"""Where the threads of workers are: the workers write it themselves, whatever they are doing, within a few seconds.

faulthandler writes the stacks in a signal handler of C, so it works while the interpreter is stuck, too. It does not
say when it has finished. But the main thread comes last, and workers are forked from here: the outermost call of their
main thread is the master's own. Once that is there, the stacks are complete. A very deep stack is cut before its
outermost call; what has stopped to grow is taken as complete then.
"""

import os
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from sdserve.arbiter.loop import Loop
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.process.proc import standing
from sdserve.status import WorkerStacks
from sdserve.workers.words import ASKED_STACKS

LOOK_EVERY = 0.01  # seconds
SETTLED = 1.0  # seconds without growth after which stacks are taken as complete
WITHIN = 5.0  # seconds: a process that does not run a handler in this time is in the kernel, or frozen
MOST = 128 * 1024  # bytes of one worker's stacks
STOPPED = "it was stopped (SIGSTOP, or a tracer), and runs no handler: SIGCONT continues it"
ENDED = "it has ended"
SILENT = f"it wrote nothing within {WITHIN:g} s: it is in the kernel, or frozen, and takes no signal"


class Stacks:
    """Asks workers for their stacks."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._asked: dict[int, _Asked] = {}  # by pid
        self._end = outermost(sys._getframe())

    def ask(self, handles: Sequence[WorkerHandle], tell: Callable[[tuple[WorkerStacks, ...]], None]) -> None:
        """Calls `tell` with the stacks of these workers, in their order, once each has written them or cannot."""
        had: dict[int, WorkerStacks] = {}

        def note(handle: WorkerHandle, trouble: str, text: str) -> None:
            had[handle.pid] = _value(handle, trouble, text, self._loop.now())
            if len(had) == len(handles):
                tell(tuple(had[each.pid] for each in handles))

        if not handles:
            tell(())
        for handle in handles:
            if trouble := self._begin(handle):
                note(handle, trouble, "")
            else:
                self._asked[handle.pid].notes.append(note)

    def _begin(self, handle: WorkerHandle) -> str:
        """Has a worker write its stacks; returns why it cannot, or ""."""
        if handle.pid in self._asked:
            return ""
        try:
            process = standing(handle.pid)
        except OSError as error:
            return f"it cannot be looked at: {error.strerror}"
        if process.stopped:
            return STOPPED
        if not process.handles(ASKED_STACKS):
            return "it is too young, or its worker class has signal handlers of its own"
        self._asked[handle.pid] = asked = _Asked(handle, self._loop.now())
        if not process.waits_for(ASKED_STACKS):
            asked.clear()
            handle.send(ASKED_STACKS)
        self._loop.call_at(self._loop.now() + LOOK_EVERY, lambda: self._look(asked))
        return ""

    def _look(self, asked: "_Asked") -> None:
        now = self._loop.now()
        text = asked.text(now)
        trouble = "" if text else asked.trouble(now)
        if trouble or text.endswith(self._end) or (text and (asked.settled(now) or asked.late(now))):
            del self._asked[asked.handle.pid]
            asked.clear()
            for note in asked.notes:
                note(asked.handle, trouble, text.decode("utf-8", "replace"))
        else:
            self._loop.call_at(now + LOOK_EVERY, lambda: self._look(asked))


class _Asked:
    """One worker that has been asked, and those who wait for its stacks."""

    def __init__(self, handle: WorkerHandle, now: float) -> None:
        self.handle = handle
        self.began = self.grown = now
        self.notes: list[Callable[[WorkerHandle, str, str], None]] = []
        self._file = handle.stacks
        self._size = 0

    def trouble(self, now: float) -> str:
        """Why a worker that has written nothing yet will write nothing more, "" while it may."""
        if self.ended:
            return ENDED
        try:
            process = standing(self.handle.pid)
        except OSError:  # there are no descriptors left, or no process; neither says that it will not write
            return SILENT if self.late(now) else ""
        # A SIGSTOP may reach it after it was asked. A tracer stops it for a moment at each signal.
        if process.state == "T" or (process.stopped and self.late(now)):
            return STOPPED
        return SILENT if self.late(now) else ""

    def late(self, now: float) -> bool:
        return now - self.began >= WITHIN

    def settled(self, now: float) -> bool:
        """Whether the stacks have stopped to grow."""
        return now - self.grown >= SETTLED

    @property
    def ended(self) -> bool:
        """Whether the worker has: its file is closed then."""
        return self._file.fileno() < 0

    def text(self, now: float) -> bytes:
        """What has been written by now."""
        if self.ended:
            return b""
        text = os.pread(self._file.fileno(), MOST, 0)
        if len(text) > self._size:
            self._size, self.grown = len(text), now
        return text

    def clear(self) -> None:
        """Empties the file, and gives its memory back."""
        if not self.ended:
            os.ftruncate(self._file.fileno(), 0)
            os.lseek(self._file.fileno(), 0, os.SEEK_SET)


def outermost(frame: FrameType) -> bytes:
    """How faulthandler ends the stack of a thread whose innermost call is `frame`."""
    while frame.f_back is not None:
        frame = frame.f_back
    return f", line {frame.f_lineno} in {frame.f_code.co_name}\n".encode()


def _value(handle: WorkerHandle, trouble: str, text: str, now: float) -> WorkerStacks:
    status = handle.status(now)
    return WorkerStacks(
        pid=status.pid,
        slot=status.slot,
        generation=status.generation,
        phase=status.phase,
        busy=status.busy,
        trouble=trouble,
        stacks=text,
    )
