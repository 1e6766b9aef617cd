"""The processes of this service besides ourselves: those of the same control group (cgroups(7), proc(5)).

The control group itself may be out of reach in a sandbox, while /proc tells of every process of the same user.
"""

import os
import select
import signal
import time
from collections.abc import Iterator

OWN = "/proc/self/cgroup"


def end_others(signum: int = signal.SIGTERM) -> list[int]:
    """Sends a signal to every other process of this service's control group; returns their pids.

    Only where that is a service of systemd's: a group of another kind, a session say, is not ours alone.
    """
    own = _read(OWN)
    if not any(line.endswith(".service") for line in own.splitlines()):
        return []
    return [pid for pid in _numbers() if pid != os.getpid() and _signal(pid, signum, own)]


def await_others(seconds: float) -> None:
    """Waits so long at most until this process is the last one of its service's control group."""
    own = _read(OWN)
    until = time.monotonic() + seconds
    if not any(line.endswith(".service") for line in own.splitlines()):
        return
    for pid in _numbers():
        if pid != os.getpid():
            _await(pid, own, until)


def _await(pid: int, group: str, until: float) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _read(f"/proc/{pid}/cgroup") == group:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(max(0.0, until - time.monotonic()) * 1000)
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or belongs to somebody else
        return
    finally:
        os.close(fd)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _numbers() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def _signal(pid: int, signum: int, group: str) -> bool:
    """Sends the signal if the process is in `group`; the pidfd means it and no later one of the same number."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if _read(f"/proc/{pid}/cgroup") != group:
            return False
        signal.pidfd_send_signal(fd, signum)
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or belongs to somebody else
        return False
    finally:
        os.close(fd)
    return True
