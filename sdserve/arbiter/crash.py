"""The last resort of a master whose own loop broke: no worker may be left behind that nobody supervises."""

import os
import select
import signal
import time
from collections.abc import Iterable

from sdserve.arbiter.handle import Handle

PATIENCE = 2.0  # seconds between QUIT and KILL


def end_all(handles: Iterable[Handle]) -> None:
    """Ends all workers, without the loop: QUIT, and KILL for those that stay. Returns when they are gone."""
    handles = list(handles)
    for handle in handles:
        handle.send(signal.SIGQUIT)
    _await(handles, PATIENCE)
    for handle in handles:
        handle.send(signal.SIGKILL)
    _await(handles, None)


def _await(handles: list[Handle], patience: float | None) -> None:
    poll = select.poll()
    by_fd = {handle.pidfd.fileno(): handle for handle in handles}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    until = None if patience is None else time.monotonic() + patience
    while by_fd:
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000
        ready = poll.poll(left)
        if not ready:
            break
        for fd, _ in ready:
            poll.unregister(fd)
            handle = by_fd.pop(fd)
            os.waitpid(handle.pid, 0)
            handles.remove(handle)
