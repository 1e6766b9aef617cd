"""Where the threads of workers are: asked of the workers, whatever they do, and not waited for for long.

faulthandler writes the stacks in a signal handler of C, so also where the interpreter is stuck. It says nothing when it
has finished. But it writes the newest thread first, so the last one is the main thread; all workers were forked from
here, so the outermost call of it is the master's own: who has written that has written all. Where even that does not
come, as many calls are on the stack, what does not grow any more is all.
"""

import os
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from sdserve.arbiter.loop import Loop
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.process.proc import standing
from sdserve.status import WorkerStacks
from sdserve.workers.told import ASKED_STACKS

LOOK_EVERY = 0.01  # seconds
SETTLED = 1.0  # seconds in which what grows no more is taken for all
WITHIN = 5.0  # seconds: a process that does not run a handler in this time is in the kernel, or frozen
MOST = 128 * 1024  # bytes of one worker's stacks


class Stacks:
    """Asks workers for their stacks."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._asked: dict[int, _Asked] = {}  # by pid
        self._end = outermost(sys._getframe())

    def ask(self, handles: Sequence[WorkerHandle], tell: Callable[[tuple[WorkerStacks, ...]], None]) -> None:
        """Calls `tell` with the stacks of these workers, in their order, when all have been had or are not to be."""
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
        """Has a worker write its stacks; returns why that cannot be, or ""."""
        if handle.pid in self._asked:
            return ""
        try:
            process = standing(handle.pid)
        except OSError as error:
            return f"it cannot be looked at: {error.strerror}"
        if process.stopped:
            return "it was stopped (SIGSTOP, or a tracer), and runs no handler: SIGCONT continues it"
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
        complete = text.endswith(self._end)
        if complete or (text and now - asked.grown >= SETTLED) or now - asked.began >= WITHIN:
            del self._asked[asked.handle.pid]
            asked.clear()
            silent = f"it wrote nothing within {WITHIN:g} s: it is in the kernel, or frozen, and takes no signal"
            trouble = "" if text else silent
            for note in asked.notes:
                note(asked.handle, trouble, text.decode("utf-8", "replace"))
        else:
            self._loop.call_at(now + LOOK_EVERY, lambda: self._look(asked))


class _Asked:
    """One worker that has been asked, and who wants to know."""

    def __init__(self, handle: WorkerHandle, now: float) -> None:
        self.handle = handle
        self.began = self.grown = now
        self.notes: list[Callable[[WorkerHandle, str, str], None]] = []
        self._file = handle.stacks
        self._size = 0

    def text(self, now: float) -> bytes:
        """What has been written by now."""
        if self._file.fileno() < 0:  # the worker has ended
            return b""
        text = os.pread(self._file.fileno(), MOST, 0)
        if len(text) > self._size:
            self._size, self.grown = len(text), now
        return text

    def clear(self) -> None:
        """Empties the file, and gives its memory back."""
        if self._file.fileno() >= 0:
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
