"""Processes as the kernel shows them: who lives, whose child, in which state, and an event when one ends."""

import gc
import os
import select
import signal
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import PATIENCE


def own_descriptors() -> set[str]:
    """The numbers of this process's open files, without those that only the garbage collector has still to close."""
    gc.collect()
    return set(os.listdir("/proc/self/fd"))


@dataclass(frozen=True)
class Process:
    """One process; `pid` as the tests' own namespace numbers it, `inner` as its innermost pid namespace does."""

    pid: int
    inner: int

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process `pid`; ProcessLookupError if there is none."""
        return cls(pid, int(_status(pid)["NSpid"].split()[-1]))

    @property
    def title(self) -> str:
        """The command line, or what the process has made of it."""
        return _read(self.pid, "cmdline").replace("\0", " ").strip()

    @property
    def state(self) -> str:
        """One letter, as in proc(5): R, S, D, Z, T."""
        return _status(self.pid)["State"][0]

    @property
    def parent(self) -> int:
        return int(_status(self.pid)["PPid"])

    @property
    def environ(self) -> dict[str, str]:
        """The environment it was started with."""
        pairs = (item.partition("=") for item in _read(self.pid, "environ").split("\0") if item)
        return {name: value for name, _, value in pairs}

    @property
    def children(self) -> list["Process"]:
        return [p for p in map(_maybe, _read(self.pid, f"task/{self.pid}/children").split()) if p is not None]

    @property
    def descriptors(self) -> int:
        """How many file descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def limits(self, resource: str) -> tuple[int, int]:
        """Soft and hard limit, as proc(5) names the resource: "Max open files", "Max processes"."""
        for line in _read(self.pid, "limits").splitlines():
            if line.startswith(resource):
                soft, hard, *_ = line.removeprefix(resource).split()
                return int(soft), int(hard)
        raise ProcessLookupError(self.pid)

    def set_soft_limit(self, option: str, soft: int) -> None:
        """`option` is prlimit(1)'s, which runs as the process's user: root alone would need CAP_SYS_RESOURCE."""
        owner = os.stat(f"/proc/{self.pid}") if self.alive else None
        if owner is None:
            return
        command = ["prlimit", "--pid", str(self.pid), f"--{option}={soft}:"]
        done = subprocess.run(
            command, user=owner.st_uid, group=owner.st_gid, extra_groups=[], capture_output=True, text=True
        )
        assert done.returncode == 0 or not self.alive, done.stderr

    @property
    def ticks(self) -> int:
        """The CPU time that it has spent, user's and system's; os.sysconf("SC_CLK_TCK") are a second."""
        fields = _read(self.pid, "stat").rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        try:
            return self.state not in "ZX"
        except ProcessLookupError:
            return False

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait_gone(self, timeout: float = PATIENCE) -> None:
        """Wait until the process, anybody's child, has ended; AssertionError after `timeout` seconds."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(timeout * 1000), f"process {self.pid} ({self.title}) still runs after {timeout:g} s"
        finally:
            os.close(pidfd)


def in_cgroup(path: Path) -> list[Process]:
    """All processes of a control group and the groups below it, oldest number first."""
    numbers: list[str] = []
    for group in [path, *(p for p in path.rglob("*") if p.is_dir())]:
        try:
            numbers += (group / "cgroup.procs").read_text().split()
        except FileNotFoundError:
            continue
    return sorted((p for p in map(_maybe, numbers) if p is not None and p.alive), key=lambda p: p.pid)


def spooled(pid: int) -> int:
    """Bytes in the nameless files that a process has open on a disk."""
    total = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found = os.stat(f"/proc/{pid}/fd/{fd}")
            named = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:  # closed meanwhile
            continue
        if stat.S_ISREG(found.st_mode) and not found.st_nlink and not named.startswith("/memfd:"):
            total += found.st_size
    return total


def _maybe(number: str) -> Process | None:
    try:
        return Process.of(int(number))
    except ProcessLookupError:
        return None


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None


def _status(pid: int) -> dict[str, str]:
    lines = (line.partition(":") for line in _read(pid, "status").splitlines())
    return {name: value.strip() for name, _, value in lines}
