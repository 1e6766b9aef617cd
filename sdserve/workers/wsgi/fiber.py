"""A call that can stop in its middle, and go on later: a thread that runs only while somebody waits for it.

The two never run at the same time. `resume` is a plain call for whoever says it, which returns when the work pauses or
ends; so the work needs no lock against its resumers, and a process that calls its application in one thread at a time
still does.
"""

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from threading import get_ident

from sdserve.errors import Leave
from sdserve.workers.wsgi.calling_thread import no_daemon


def _nothing() -> None:
    """The work of a fiber that has none."""


class Fiber:
    """`work` in a thread of its own, which ends with it. The thread is there before there is any work for it."""

    __slots__ = ("_back", "_error", "_go", "ended", "thread", "work")

    def __init__(self) -> None:
        """Raises RuntimeError when there can be no more threads."""
        self.work: Callable[[], None] = _nothing
        self._go = allocate_lock()
        self._go.acquire()
        self._back = allocate_lock()
        self._back.acquire()
        self._error: BaseException | None = None
        self.ended = False
        self.thread = 0
        start_new_thread(self._run, ())

    def resume(self) -> None:
        """Runs the work until it pauses or has ended. Raises what it raised."""
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # its traceback leads back here: a cycle

    def pause(self) -> None:
        """Said by the work: back to who resumed it, until it is resumed."""
        self._back.release()
        self._go.acquire()

    def abandon(self) -> None:
        """Has work that runs go no further: Leave is raised where it is, or where it comes back from C code.

        For a resumer that is interrupted and will not come back: its thread is not to be shared from then on. Raises
        what ctypes raises where it cannot be loaded.
        """
        import ctypes

        if not self.ended:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(Leave))

    def _run(self) -> None:
        self._go.acquire()
        self.thread = get_ident()
        try:
            with no_daemon():
                self.work()
        except BaseException as error:  # noqa: BLE001 - for the resumer
            self._error = error
        finally:
            self.ended = True
            self.work = _nothing  # it knows whose fiber this is
            self._back.release()
