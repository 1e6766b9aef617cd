"""What the service is doing, as one value: shown by sdservectl, STATUS= and whoever else asks."""

from typing import Any, TypeVar

from sdserve.immutable import Immutable


class WorkerStatus(Immutable):
    """One worker. `busy` is for how many seconds its oldest request has been in progress, None when it is idle."""

    pid: int
    slot: int
    generation: int
    phase: str
    requests: int
    busy: float | None


class WorkerStacks(Immutable):
    """Where the threads of one worker are, as faulthandler writes it. `trouble` is why it is not known, or ""."""

    pid: int
    slot: int
    generation: int
    phase: str
    busy: float | None
    trouble: str
    stacks: str

    def as_dict(self) -> dict[str, Any]:
        return self._named()


class WorkerFigures(Immutable):
    """One worker, as shared memory shows it.

    age: seconds since the fork
    requests: answered so far, None where it is another master's
    threads: that call the application, 0 where an event loop does; `calls` are in it now
    busy: for how many seconds it has not looked at its sockets, None at rest
    """

    pid: int
    slot: int
    generation: int
    state: str
    age: float
    requests: int | None
    threads: int
    calls: int
    connections: int
    busy: float | None


class SlowRequest(Immutable):
    """A request that a worker has been busy with for more than a second, when it last said so.

    seconds: for how long
    answers: whether its answer has begun, as that of a stream has
    request: method and path, in printable ASCII; "" where the worker has not said what it is busy with
    """

    pid: int
    slot: int
    seconds: float
    answers: bool
    request: str


class Backlog(Immutable):
    """A listener's accept queue: how many connections wait in it, of how many that may."""

    listener: str
    waiting: int
    limit: int


class Answers(Immutable):
    """Answers of one class of status so far. `buckets` has their number by time, and its last one no upper bound."""

    code: str
    buckets: tuple[int, ...]


class Figures(Immutable):
    """What a service is doing and has counted.

    at: seconds of the machine's monotonic clock
    bounds: the upper ends of the buckets, in seconds
    trouble: the last failed reload or upgrade, "" if none came after the last success
    """

    at: float
    state: str
    wanted: int
    generation: int
    bounds: tuple[float, ...]
    answers: tuple[Answers, ...]
    reloads: int
    reloads_failed: int
    upgrades: int
    upgrades_failed: int
    trouble: str
    backlogs: tuple[Backlog, ...]
    workers: tuple[WorkerFigures, ...]
    slow: tuple[SlowRequest, ...]

    def as_dict(self) -> dict[str, Any]:
        lists = {name: [each._named() for each in getattr(self, name)] for name in _FIGURES}
        return self._named() | lists

    @classmethod
    def read(cls, data: dict[str, Any]) -> "Figures":
        """What `as_dict` made, perhaps of another version: fields that are not known are passed over, and those with a
        default may be missing."""
        lists = {name: tuple(_known(kind, each) for each in data[name]) for name, kind in _FIGURES.items()}
        return _known(cls, {**data, **lists})


_FIGURES: dict[str, type[Immutable]] = {
    "answers": Answers,
    "backlogs": Backlog,
    "workers": WorkerFigures,
    "slow": SlowRequest,
}
K = TypeVar("K", bound=Immutable)


def _known(kind: type[K], data: dict[str, Any]) -> K:
    return kind(**{name: data[name] for name in kind._fields if name in data})


class Status(Immutable):
    """The service. `wanted` is the number of workers asked for; `trouble` the last failed reload or upgrade, if any."""

    version: str
    master: str
    pid: int
    state: str
    generation: int
    wanted: int
    successor: int
    predecessor: int
    trouble: str
    listeners: tuple[str, ...]
    workers: tuple[WorkerStatus, ...]

    def count(self, phase: str) -> int:
        return sum(1 for worker in self.workers if worker.phase == phase)

    def line(self) -> str:
        """One line for `systemctl status`; it changes when something happened, not with each request."""
        serving = self.count("serving")
        parts = [
            f"{self.state.capitalize()}: {serving} of {_workers(self.wanted)} serving, generation {self.generation}"
        ]
        parts += [f"{number} {phase}" for phase in ("booting", "retiring") if (number := self.count(phase))]
        if self.successor:
            parts.append(f"upgrade to pid {self.successor} under way")
        if self.predecessor:
            parts.append(f"beside the old master, pid {self.predecessor}")
        if self.trouble:
            parts.append(self.trouble)
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        return self._named() | {"workers": [worker._named() for worker in self.workers]}


def _workers(number: int) -> str:
    return "1 worker" if number == 1 else f"{number} workers"


def plain(text: str) -> str:
    """`text` in printable ASCII, with nothing that a terminal would take for a command, whoever wrote it."""
    if text.isascii() and text.isprintable():
        return text
    ascii_only = text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in ascii_only)
