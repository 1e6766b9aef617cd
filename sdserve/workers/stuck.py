"""A worker whose only thread is stuck in a request: another thread finishes what else the worker holds.

ABRT interrupts the stuck call (system calls end with EINTR, signal(7)), and its handler runs on top of it. The handler
starts a thread and waits for it, so the stuck request does not go on, and no two parts of the application run at the
same time. A call that has a thread of its own (fiber.py) ends where it is, or when it comes back from C code. The new
thread retires the worker: it gives connections to other workers, also those with half a request, and answers what it
cannot give away; requests that nobody adopts go to the application, in this thread. Then the process ends, without ever
returning to the stuck call.

All this needs the handler to run. While C code does not return to the interpreter it cannot, and the master kills the
worker.
"""

import _thread
from collections.abc import Callable, Sequence
from time import monotonic
from types import CodeType, FrameType

from sdserve.log import Logger

LEAVE = 0.25  # seconds before the master's KILL that are left for the hook worker_exit


def is_in_call(frame: FrameType | None, beginnings: Sequence[CodeType]) -> bool:
    """Whether `frame` is inside of a request: one of the `beginnings` is among its callers."""
    return _depth(frame, beginnings) is not None


def stack(frame: FrameType | None, beginnings: Sequence[CodeType]) -> str:
    """Where in the application a request is, as a traceback shows it."""
    import traceback

    return "".join(traceback.format_stack(frame, _depth(frame, beginnings))) if frame is not None else "(no stack)\n"


def _depth(frame: FrameType | None, beginnings: Sequence[CodeType]) -> int | None:
    """How many calls `frame` is away from where the request begins; None outside of a request."""
    calls = 0
    while frame is not None:
        if frame.f_code in beginnings:
            return calls
        calls += 1
        frame = frame.f_back
    return None


def outlive(finish: Callable[[], None], until: float, log: Logger) -> None:
    """For the interrupted thread: has another one `finish` what the worker holds, by `until` (monotonic seconds)."""
    finished = _thread.allocate_lock()
    finished.acquire()

    def run() -> None:
        try:
            finish()
        except BaseException:
            log.exception("Exception while the worker finished what it held")
        finally:
            finished.release()

    # Not threading.Thread: it takes locks, which the interrupted code may hold.
    _thread.start_new_thread(run, ())
    finished.acquire(timeout=max(0.0, until + LEAVE - monotonic()))
