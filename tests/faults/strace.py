"""One system call of a running process fails: strace(1) attaches, injects an error, and tells which call it was.

The call is not made at all, and the process gets the error in its place, in whichever thread comes to it.
`-yy` shows what a descriptor is, so a fault in a connection can be told from one that concerns no connection.
"""

import re
import select
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PEER = re.compile(r"<TCP(?:v6)?:\[[^\]]*->127\.0\.0\.1:(\d+)\]>")
CALL = re.compile(r"^(?:\d+ +)?(\w+)\(")
BEGUN = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
ENDED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")


class CannotTrace(Exception):
    """The kernel, or this sandbox, lets nobody trace: see ptrace(2)."""


@dataclass(frozen=True)
class Fault:
    """`call` fails with `errno`, at its first occurrence in each thread, or as `when` says (strace(1), --inject)."""

    call: str
    errno: str
    when: str = "1"

    def __str__(self) -> str:
        return f"{self.call} {self.errno} ({self.when})"


class Tracer:
    """strace on one process, inside a `with`; on its threads and children too, if `follow`.

    Raises CannotTrace when it cannot attach.
    """

    def __init__(self, pid: int, *options: str, follow: bool = True) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="sdserve-strace-")  # noqa: SIM115 - closed in __exit__
        self._pid = pid
        self._options = (*options, "-f") if follow else options
        self.lines: list[str] = []

    def __enter__(self) -> "Tracer":
        self._strace = subprocess.Popen(
            ["strace", "-yy", "-s", "60", "-o", self._file.name, "-p", str(self._pid), *self._options],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._strace.stderr is not None
        told = select.select([self._strace.stderr], [], [], 20)[0]
        line = self._strace.stderr.readline().decode() if told else "it says nothing"
        if "attached" not in line:
            self._strace.kill()
            self._strace.wait()
            raise CannotTrace(line.strip())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._strace.send_signal(signal.SIGINT)
        try:
            self._strace.communicate(timeout=20)
        except subprocess.TimeoutExpired:  # it may wait for a leader whose last thread it has not reaped
            self._strace.kill()
            self._strace.communicate()
        self.lines = list(_whole(Path(self._file.name).read_text(errors="replace").splitlines()))
        self._file.close()

    @property
    def injected(self) -> list[str]:
        """The calls that failed because we wanted it."""
        return [line for line in self.lines if "(INJECTED)" in line]

    @property
    def ports(self) -> set[int]:
        """The clients, by their port, whose connections were concerned."""
        return {int(port) for line in self.injected for port in PEER.findall(line)}

    @property
    def calls(self) -> Counter[str]:
        """How often each system call was made."""
        return Counter(found[1] for line in self.lines if (found := CALL.match(line)))


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """One line for each call: strace tells of one in two where other threads made calls meanwhile."""
    begun: dict[str, str] = {}
    for line in lines:
        if found := BEGUN.match(line):
            begun[found[1]] = found[2]
        elif found := ENDED.match(line):
            yield f"{found[1]} {begun.pop(found[1], '')}{found[2]}"
        else:
            yield line
    yield from (f"{pid} {call}" for pid, call in begun.items())


def inject(pid: int, fault: Fault, follow: bool = True) -> Tracer:
    """Has `fault` happen to the process `pid` inside a `with`."""
    options = ("-e", f"trace={fault.call}", "-e", f"inject={fault.call}:error={fault.errno}:when={fault.when}")
    return Tracer(pid, *options, follow=follow)


def watch(pid: int, follow: bool = True) -> Tracer:
    """Notes all system calls of the process `pid` inside a `with`."""
    return Tracer(pid, follow=follow)
