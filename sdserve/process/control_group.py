"""The processes of this service besides ourselves: those of the same control group (cgroups(7), proc(5)).

The control group itself may be out of reach in a sandbox, while /proc tells of every process of the same user.
"""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

OWN = "/proc/self/cgroup"


def end_others() -> list[int]:
    """Sends TERM to every other process of this service's control group; returns their pids."""
    ended = []
    for pid, fd in _others():
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(fd, signal.SIGTERM)
            ended.append(pid)
    return ended


def await_others(seconds: float) -> None:
    """Waits so long at most until this process is the last one of its service's control group."""
    until = time.monotonic() + seconds
    for _, fd in _others():
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(max(0.0, until - time.monotonic()) * 1000)


def _others() -> Iterator[tuple[int, int]]:
    """The other processes, each with a pidfd: it means this one and no later one of the same number.

    Only where the group is a service of systemd's: one of another kind, a session say, is not ours alone.
    """
    group = _read(OWN)
    if not any(line.endswith(".service") for line in group.splitlines()):
        return
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]:
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # ended, or somebody else's
            fd = os.pidfd_open(pid)
            try:
                if _read(f"/proc/{pid}/cgroup") == group:
                    yield pid, fd
            finally:
                os.close(fd)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
