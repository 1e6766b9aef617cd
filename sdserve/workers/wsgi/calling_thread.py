"""Threads that call the application: at the end of the process nobody waits for them, only for what it starts in them.

A thread inherits `daemon` from the one that makes it. So these must be daemons to the interpreter, which joins all
others at its end, and none to an application that looks, or starts a thread to send a mail: that one is joined, as it
is where the main thread calls the application.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident


class CallingThread(threading.Thread):
    """A daemon to others, and none to itself."""

    _runs = False

    def run(self) -> None:
        self._runs = True
        super().run()

    @property
    def daemon(self) -> bool:
        return not (self._runs and get_ident() == self.ident)

    @daemon.setter
    def daemon(self, value: bool) -> None:
        raise RuntimeError("cannot set daemon status of active thread")


@contextmanager
def no_daemon() -> Iterator[None]:
    """The same within a thread that `_thread` has started: what threading takes it for is a daemon."""
    seen = vars(threading.current_thread())
    seen["_daemonic"] = False
    try:
        yield
    finally:  # nobody forgets it, and it is not to be named among those that are left behind
        seen["_daemonic"] = True
