"""statsd as tests need it: a socket that hears, and a reader of the protocol that takes nothing on trust.

The grammar is that of statsd's docs/metric_types.md, with DogStatsD's tags.
"""

import re
import socket
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.support.waiting import PATIENCE, eventually, readable

LINE = re.compile(
    r"(?P<name>[!-9;-?A-{}~]+):(?P<value>[+-]?\d+(?:\.\d+)?)\|(?P<kind>c|g|ms|h)(?:\|#(?P<tags>[^\s|#,]+(?:,[^\s|#,]+)*))?",
    re.ASCII,
)


class Figure(NamedTuple):
    name: str
    value: float
    kind: str
    tags: tuple[str, ...] = ()


def read(line: str) -> Figure:
    found = LINE.fullmatch(line)
    assert found, f"not a line of statsd's: {line!r}"
    return Figure(
        found["name"], float(found["value"]), found["kind"], tuple(filter(None, (found["tags"] or "").split(",")))
    )


class Statsd:
    """Listens on a free port of the loopback, or at `path`."""

    def __init__(self, path: Path | None = None) -> None:
        self.sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(str(path) if path else ("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.address = f"unix://{path}" if path else f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.sizes: list[int] = []
        self.figures: list[Figure] = []

    def hear(self) -> list[Figure]:
        """All that has come until now."""
        while readable(self.sock, timeout=0):
            datagram = self.sock.recv(65536)
            self.sizes.append(len(datagram))
            self.figures += map(read, datagram.decode("ascii").removesuffix("\n").split("\n"))
        return self.figures

    def counts(self) -> Counter[str]:
        """The sum of each counter, and how many durations there were."""
        sums: Counter[str] = Counter()
        for figure in self.hear():
            if figure.kind in ("c", "ms"):
                sums[figure.name] += int(figure.value) if figure.kind == "c" else 1
        return sums

    def wait(self, name: str, count: int, timeout: float = PATIENCE) -> Counter[str]:
        """Waits until a counter, or the number of durations, has come to `count`."""
        eventually(lambda: self.counts()[name] >= count, f"{name} {count}", timeout)
        return self.counts()

    def close(self) -> None:
        self.sock.close()
