"""Answers of a master, as people read them."""

from collections.abc import Iterator
from typing import Any

BOOT = '/sdserve/workers/boot.py", line '


def state(answer: dict[str, Any]) -> str:
    """What the service is doing, worker by worker."""
    status = answer["status"]
    lines = [f"{answer['text']}", f"{status['master']} pid {status['pid']}, sdserve {status['version']}"]
    lines += [f"listening at {each}" for each in status["listeners"]]
    for worker in status["workers"]:
        place = f"slot {worker['slot']}, generation {worker['generation']}, {worker['phase']}"
        lines.append(f"worker {worker['pid']}: {place}, {requests(worker['requests'])}, {busy(worker)}")
    return "\n".join(lines)


def requests(count: int) -> str:
    return f"{count} request" if count == 1 else f"{count} requests"


def busy(worker: dict[str, Any]) -> str:
    return "idle" if worker["busy"] is None else f"busy for {worker['busy']:.1f} s"


def stacks(answer: dict[str, Any]) -> str:
    """Where each thread of each worker is, the newest call first."""
    lines = []
    for worker in answer["workers"]:
        place = f"slot {worker['slot']}, generation {worker['generation']}, {worker['phase']}"
        lines.append(f"worker {worker['pid']}: {place}, {busy(worker)}")
        if worker["trouble"]:
            lines.append(f"  no stacks: {worker['trouble']}")
        lines += [f"  {line}" if line else "" for line in told(worker["stacks"])]
        lines.append("")
    return "\n".join(lines[:-1])


def told(stacks: str) -> Iterator[str]:
    """The lines of a worker's stacks, without the calls by which the process came to be a worker."""
    hidden = False
    for line in stacks.splitlines():
        hidden = bool(line) and (hidden or BOOT in line)
        if not hidden:
            yield line
