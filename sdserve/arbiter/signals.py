"""Signals as events of the loop.

A handler only notes the signal; the loop, woken through the wake-up pipe, calls the verb for it at a safe place.
Signals that mean "do it" are merged while they wait, signals that mean "one more" are counted, none is lost.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sdserve.arbiter.loop import Pipe
from sdserve.workers.words import ASKED_CALLS, ASKED_STACKS, STACKS

Handler = Callable[[int, FrameType | None], None]
_NAMES = ("HUP", "QUIT", "INT", "TERM", "TTIN", "TTOU", "USR1", "USR2", "WINCH", "CHLD", "CONT", "RTMIN")
QUEUED = tuple(signal.Signals[f"SIG{name}"] for name in _NAMES)
COUNTED = (signal.SIGTTIN, signal.SIGTTOU)
# Meant for workers. Ignored across fork and exec, too: `systemctl kill` sends them to every process of a unit.
IGNORED = (STACKS, ASKED_STACKS, ASKED_CALLS)
# Ignored across exec: the new master must survive them until it can listen. A blocked signal would stay pending and
# start an upgrade of its own.
IGNORED_ACROSS_EXEC = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, *COUNTED, signal.SIGWINCH)


class SignalQueue:
    """The signals that wait to be handled."""

    def __init__(self, pipe: Pipe | None = None) -> None:
        self.pipe = pipe or Pipe()
        self._waiting: list[signal.Signals] = []

    def put(self, signum: int) -> None:
        signum = signal.Signals(signum)
        if signum in COUNTED or signum not in self._waiting:
            self._waiting.append(signum)

    def put_nowait(self, signum: int) -> None:
        """`put`, for hooks, which know the queue as a queue.SimpleQueue: the loop turns at once."""
        self.put(signum)
        self.pipe.wake()

    append = put_nowait  # as a list, in versions before 24

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> list[signal.Signals]:
        """The waiting signals, in the order of their arrival."""
        taken, self._waiting = self._waiting, []
        return taken


def catch(handler: Handler, wakeup_fd: int) -> None:
    """Catches all signals of a master, and ignores those of workers; each that is caught also writes to `wakeup_fd`."""
    signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    for signum in IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    for signum in QUEUED:
        signal.signal(signum, handler)


@contextmanager
def kept() -> Iterator[None]:
    """While a master runs foreign code: what that sets for a master's signals, or has them wake, is taken back."""
    before = {signum: signal.getsignal(signum) for signum in (*QUEUED, *IGNORED)}
    wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
        for signum, handler in before.items():
            if handler is not None and signal.getsignal(signum) != handler:  # None: of C code
                signal.signal(signum, handler)


def block_all() -> None:
    """Before a fork: what arrives meanwhile stays pending for each side to take with its own handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def unblock_all() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


def ready_for_exec() -> None:
    """In the child that is about to exec: forget the handlers, ignore what is meant for masters, block nothing."""
    signal.set_wakeup_fd(-1)
    for signum in QUEUED:
        signal.signal(signum, signal.SIG_IGN if signum in IGNORED_ACROSS_EXEC else signal.SIG_DFL)
    unblock_all()
