"""What the service is doing, as one value: shown by sdservectl, STATUS= and whoever else asks."""

from typing import Any

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
