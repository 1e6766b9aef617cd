"""A worker hears that its master was killed also when it is stuck in a request.

A worker that polls hears the end of file on its channel. One that is stuck never polls: without its master, which would
have ended it, it would hold the listening sockets for ever, and take connections that nobody answers. So it has one end
of a pipe whose other end only the master holds, and the kernel signals the end of file there (O_ASYNC, fcntl(2)). The
handler runs wherever the interpreter is; from there on `orphan_timeout` counts, by a thread that needs no interpreter.

Only C code that does not come back to the interpreter from before the master's death on is not reached: that is left to
the service manager, or to the application's own time-outs. PR_SET_PDEATHSIG (prctl(2)) would tell no more: it asks for
the thread that forked instead of the master, and is forgotten at a change of user. The channel itself is not used, for
what the master says there must not interrupt system calls of the application.
"""

import fcntl
import os
import select
import signal
from collections.abc import Callable
from types import FrameType

NEWS = signal.SIGURG  # ignored by default: who resets it does no harm


def watch_master(lifeline: int, on_death: Callable[[], None]) -> None:
    """From now on `on_death` is called once nobody holds the other end of the lifeline any more."""

    def hear(signum: int, frame: FrameType | None) -> None:
        if is_cut(lifeline):
            signal.signal(NEWS, signal.SIG_IGN)
            on_death()

    signal.signal(NEWS, hear)  # without SA_RESTART: a wait for a lock must be interrupted
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, NEWS)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    hear(NEWS, None)  # it may be gone already


def is_cut(lifeline: int) -> bool:
    """Whether nobody holds the other end of the pipe any more."""
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
