"""The processes of this service besides ourselves: those of the same control group (cgroups(7), proc(5)).

The control group lists them, where a sandbox leaves it in sight. Elsewhere /proc tells of those of the same user, but
not with PrivateUsers=: each command of a unit has a user namespace of its own then, and ProtectProc= hides the others'.
"""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

OWN = "/proc/self/cgroup"
MOUNTS = "/proc/self/mountinfo"


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
    listed = members(group)
    candidates = listed or [int(name) for name in os.listdir("/proc") if name.isdigit()]
    for pid in candidates:
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # ended, or somebody else's
            if pid == os.getpid():
                continue
            fd = os.pidfd_open(pid)
            try:
                # Whoever is listed may have ended before it had a pidfd, and its number may be another's by now.
                if pid in members(group) if listed else _read(f"/proc/{pid}/cgroup") == group:
                    yield pid, fd
            finally:
                os.close(fd)


def members(group: str) -> list[int]:
    """The pids of the control group that /proc/self/cgroup names so; none where its file is out of reach."""
    for line in _read(MOUNTS).splitlines():
        mount, _, system = line.partition(" - ")
        root, point = mount.split(" ")[3:5]
        kind, _, options = system.split(" ")
        if kind == "cgroup2":
            controllers = ""
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            controllers = "name=systemd"
        else:
            continue
        for entry in group.splitlines():
            _, name, path = entry.split(":", 2)
            if name == controllers and path.endswith(".service"):
                with suppress(OSError):
                    listed = _read(f"{point}/{path.removeprefix(root)}/cgroup.procs").split()
                    return [int(pid) for pid in listed if pid != "0"]  # 0: of another pid namespace
    return []


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
