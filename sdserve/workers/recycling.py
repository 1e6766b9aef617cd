"""When a worker is replaced: it has answered enough requests, or holds too much memory.

It asks for its replacement and serves on until that serves. Memory is looked at as requests end, now and
then: a worker that does nothing does not grow. Resident pages are cheap to read (proc_pid_statm(5)), but count what
workers of a preloaded application share, so only above the limit its proportional share is asked for
(proc_pid_smaps(5)), which costs milliseconds.
"""

import os
import sys
import time

LOOK_EVERY = 1.0  # seconds
LOOK_AGAIN = 10.0  # seconds, after a look that cost more


class Recycling:
    """The limits of one worker: requests, plus up to `jitter` at random, and bytes of memory; 0 for none."""

    def __init__(self, max_requests: int, jitter: int, max_memory: int) -> None:
        self.max_requests = max_requests + at_random(jitter) if max_requests > 0 else sys.maxsize
        self.looks_from = 0 if max_memory else self.max_requests  # requests: before that there is no reason
        self._max_memory = max_memory
        self._next_look = 0.0

    def reason(self, requests: int) -> str:
        """Why a worker that has answered so many requests is to be replaced, or ""."""
        if requests >= self.max_requests:
            return f"answered {requests} requests"
        if self._max_memory:
            return self._memory_reason(time.monotonic())
        return ""

    def _memory_reason(self, now: float) -> str:
        if now < self._next_look:
            return ""
        self._next_look = now + LOOK_EVERY
        try:
            if resident() < self._max_memory:
                return ""
            self._next_look = now + LOOK_AGAIN
            share = proportional_share()
        except OSError:  # unknown: no descriptor is free, say. The next look may tell
            return ""
        return f"holds {share >> 20} MiB of memory" if share >= self._max_memory else ""


def at_random(most: int) -> int:
    """A whole number from 0 to `most`."""
    return int.from_bytes(os.urandom(8)) % (most + 1)


def resident(pid: int | str = "self") -> int:
    """Bytes of a process in memory, shared ones included (RSS). It waits for nothing that the process may hold."""
    with open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def proportional_share() -> int:
    """Bytes of this process in memory, each shared page divided among its users (PSS)."""
    with open("/proc/self/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return resident()
