"""Clients of all kinds at once, and a diary of what was done to the service meanwhile.

A `Mix` is several `Load`s with one record each: connections for each request and kept ones, with and without time to
think, quick and slow requests, bodies in one piece and in many. What is lost is told with the kind of client, the time,
and what the diary says of that time.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from tests.support.load import Connect, Failure, Load, Record

CLIENTS = 32
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "new, 50 ms": (6, {"reuse": 0, "path": "/sleep/0.05"}),
    "new, at once": (2, {"reuse": 0, "think": 0.02}),
    "kept, 50 ms": (6, {"path": "/sleep/0.05"}),
    "kept, at once": (2, {"think": 0.02}),
    "kept, thinks": (6, {"think": 0.3}),
    "kept, thinks long": (2, {"think": 1.5}),
    "kept, 500 ms": (2, {"path": "/sleep/0.5"}),
    "new, 500 ms": (1, {"reuse": 0, "path": "/sleep/0.5"}),
    "posts": (2, {"path": "/echo", "body": b"small=1", "think": 0.05}),
    "posts, new": (1, {"path": "/echo", "reuse": 0, "body": b"small=2", "think": 0.05}),
    "posts 100 kB in pieces": (1, {"path": "/echo", "body": b"0123456789" * 10240, "pieces": 16, "think": 0.1}),
    "posts 300 kB in pieces, new": (
        *(1, {"path": "/echo", "reuse": 0, "body": b"abcdef" * 51200, "pieces": 16, "think": 0.1}),
    ),
}
"""By name: of CLIENTS clients how many, and what is special about them. All paths are those of tests/apps/plain.py."""


class Diary:
    """What was done, from when to when (monotonic seconds)."""

    def __init__(self) -> None:
        self.deeds: list[tuple[float, float, str]] = []
        self._writing = threading.Lock()

    @contextmanager
    def entry(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        with self._writing:
            number = len(self.deeds)
            self.deeds.append((began, float("inf"), what))
        try:
            yield
        finally:
            self.deeds[number] = (began, time.monotonic(), what)

    def at(self, when: float) -> str:
        """What was under way at that time, or what was the last thing before."""
        within = [what for since, until, what in self.deeds if since <= when <= until]
        if within:
            return "during " + ", ".join(within)
        before = [(when - until, what) for since, until, what in self.deeds if until < when]
        return "{:.3f} s after {}".format(*min(before)) if before else "before anything was done"


class Mix:
    """Clients of all `kinds` that ask from `start` to `stop`, or inside a `with`; `clients` of them in all."""

    def __init__(self, connect: Connect, clients: int = CLIENTS, kinds: dict[str, Any] | None = None) -> None:
        chosen = kinds or KINDS
        whole = sum(number for number, _ in chosen.values())
        self.diary = Diary()
        self.loads: dict[str, Load] = {}
        for name, (number, options) in chosen.items():
            some = max(1, round(number * clients / whole))
            self.loads[name] = Load(connect, **{"clients": some, "reuse": some, **options})

    def __enter__(self) -> "Mix":
        for load in self.loads.values():
            load.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def pause(self) -> None:
        """Have all clients stay idle after their present requests, their connections open."""
        for load in self.loads.values():
            load.pause()

    def resume(self) -> None:
        for load in self.loads.values():
            load.resume()

    def stop(self) -> None:
        for load in self.loads.values():
            load.stop()

    @property
    def record(self) -> Record:
        """What the clients of all kinds saw."""
        whole = Record()
        for load in self.loads.values():
            whole.answers += load.record.answers
            whole.failures += load.record.failures
            whole.stale += load.record.stale
            whole.closed_idle += load.record.closed_idle
        return whole

    @property
    def lost(self) -> list[tuple[str, Failure]]:
        """What was written and not answered, with the kind of client, in order."""
        found = [(name, failure) for name, load in self.loads.items() for failure in load.record.lost]
        return sorted(found, key=lambda each: each[1].at)

    def wait_answers(self, more: int = 2, timeout: float = 30.0) -> None:
        """Wait until each kind of client got so many more answers."""
        goals = {name: len(load.record.answers) + more for name, load in self.loads.items()}
        for name, load in self.loads.items():
            load.wait(_reached(goals[name]), f"{more} more answers to {name}", timeout)

    def story(self) -> str:
        """What was seen, and each loss by name, time and deed."""
        lines = [f"{self.record} of clients of {len(self.loads)} kinds; {len(self.diary.deeds)} deeds"]
        began = self.diary.deeds[0][0] if self.diary.deeds else 0.0
        for name, failure in self.lost:
            old = "stale, " if failure.reused else ""
            lines.append(f"  {failure.at - began:8.3f} s: {name}: {old}{failure.name}, {self.diary.at(failure.at)}")
        return "\n".join(lines)

    def check(self) -> None:
        """Nothing was lost, and everything was answered well."""
        record = self.record
        assert not self.lost, self.story()
        assert set(record.statuses) == {200}, self.story()


def _reached(goal: int) -> Callable[[Record], bool]:
    return lambda record: len(record.answers) >= goal
