"""What the kernel shows of a process in /proc/PID: status (proc_pid_status(5)) and memory (proc_pid_smaps(5))."""

from contextlib import suppress

from sdserve.immutable import Immutable


class Standing(Immutable):
    """Its state in a letter (T: stopped by a signal, t: by a tracer), its signals as masks, its number of threads."""

    state: str
    pending: int
    caught: int
    threads: int

    def waits_for(self, signum: int) -> bool:
        """Whether a signal was sent and has not reached it."""
        return bool(self.pending >> (signum - 1) & 1)

    def handles(self, signum: int) -> bool:
        """Whether a signal would run a handler: its default action may be the end."""
        return bool(self.caught >> (signum - 1) & 1)

    @property
    def stopped(self) -> bool:
        return self.state in "Tt"


def standing(pid: int) -> Standing:
    """How a process stands. Raises OSError."""
    with open(f"/proc/{pid}/status", "rb") as status:
        return read(status.read())


def read(status: bytes) -> Standing:
    """The text of the file, as a value."""
    fields = dict(line.split(b":\t", 1) for line in status.splitlines() if b":\t" in line)
    pending = int(fields[b"SigPnd"], 16) | int(fields[b"ShdPnd"], 16)
    return Standing(fields[b"State"].decode()[:1], pending, int(fields[b"SigCgt"], 16), int(fields[b"Threads"]))


def read_pss(pid: int) -> int | None:
    """Bytes of a process, with its part of shared memory (PSS, proc_pid_smaps(5)); None if the kernel does not tell."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return None
