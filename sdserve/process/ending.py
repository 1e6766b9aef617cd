"""The end of a process in bounded time: what the application did not end is named, and left behind.

At its end an interpreter joins all threads but daemons, and calls what atexit has been given, for as long as they take.
Nobody else may end the process: its master, or systemd, perhaps has not told it to go.
"""

import os
import signal
import sys
import threading
from typing import NoReturn

from sdserve.process import output
from sdserve.process.forked import Tell

STDERR = 2  # the descriptor: sys.stderr may be anything that a hook or an application made of it


def end_within(seconds: float) -> None:
    """This process ends by then, whatever it is doing; a traceback of each thread goes to standard error."""
    import faulthandler

    try:
        faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)
    except RuntimeError:  # no room for a thread: then without a traceback, by SIGALRM's default action
        signal.setitimer(signal.ITIMER_REAL, seconds)


def leave_within(seconds: float, tell: Tell, code: int) -> None:
    """This process, which is about to end with `code`, has ended by then; `tell` hears what it did not wait for."""
    timer = threading.Timer(seconds, _leave_behind, (tell, code))
    timer.daemon = True  # it is not waited for itself
    try:
        timer.start()
    except RuntimeError:  # no room for a thread
        end_within(seconds)


def _leave_behind(tell: Tell, code: int) -> NoReturn:
    try:
        main = threading.main_thread()
        left = [f"thread {each.name}" for each in threading.enumerate() if each is not main and not each.daemon]
        tell("Process %s leaves behind what the application did not end: %s", os.getpid(), ", ".join(left) or _place())
        output.flush_all()
    finally:
        os._exit(code & 0xFF)


def _place() -> str:
    """Where the main thread is, if not in code of ours that calls what is written in C."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None or str(frame.f_globals.get("__name__")).startswith("sdserve."):
        return "a function of atexit"
    return f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
