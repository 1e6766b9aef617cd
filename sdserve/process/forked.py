"""What the application forks is the application's own: it holds nothing of the worker's, and never acts as a worker.

A child inherits all that its worker holds. What it kept open would outlive the worker: connections whose clients wait
for their end, listeners that nobody serves. What it answered would be a second answer; and its signals would be heard
by the worker as well, whose wake-up pipe it shares. So a child lets go of all that first of all (`watch`), and one that
comes back from the application's code to ours ends there (`leave`). What another thread was about to open meanwhile it
keeps: so a process that has forked (`parent`) shuts down what it closes.

What is executed afterwards (exec(2)) has lost its descriptors anyway. A fork in C code that Python does not hear of
(PyOS_AfterFork_Child) is not seen here.
"""

import os
import signal
from _thread import get_ident
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NoReturn

from sdserve.process import output

child = False  # whether this process is one
parent = False  # whether it has had one

Tell = Callable[..., None]  # as Logger.error


def watch(close_in_child: Callable[[], None], signals: Iterable[int]) -> None:
    """From now on each child of this process calls `close_in_child` before anything else. `signals` wait until then."""
    masks: dict[int, set[int]] = {}  # by thread; several may be about to fork

    def before() -> None:
        masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def restore() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop(get_ident()))

    def go_on() -> None:
        global parent
        parent = True
        restore()

    def begin() -> None:
        global child
        child = True
        try:
            close_in_child()
        finally:
            restore()

    os.register_at_fork(before=before, after_in_parent=go_on, after_in_child=begin)


def leave(tell: Tell, error: BaseException | None = None, what: str = "") -> NoReturn:
    """The end of a child that has come back, by returning or with `error`. `what` it was forked in, for the log."""
    code = 0
    try:
        if isinstance(error, SystemExit):
            code = exit_code(error, tell)
        elif error is not None:
            code = 1
            tell("Error in process %s, which was forked in %s", os.getpid(), what or "a worker", exc_info=error)
        output.flush_all()
    finally:
        os._exit(code & 0xFF)


def exit_code(leaving: SystemExit, tell: Tell) -> int:
    """The exit code of a process that SystemExit ends; a message instead of a code is told, as the interpreter does."""
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    tell("%s", leaving.code)
    return 1


class Border:
    """Foreign code runs inside of it (`with`). A child that was forked there goes no further."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if child:
            leave(self._tell, error)
