"""A worker that serves tests/apps/corners.py, on one event loop or the other, and what its calls have noted."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.server import Server, free_port
from tests.support.waiting import eventually
from tests.support.wire import Response, Wire, exchange, get

LOOPS = ("uvloop", "asyncio")
KEYS = itertools.count()


class Corners:
    """`server` serves at `address`."""

    def __init__(self, server: Server, address: tuple[str, int]) -> None:
        self.server = server
        self.address = address

    def ask(self, path: str, *lines: str, **more: Any) -> Response:
        """One answer, on a connection of its own."""
        return exchange(self.address, get(path, *lines, **more), more.get("method", "GET"))

    def wire(self, data: bytes = b"") -> Wire:
        return Wire(self.address, data)

    def key(self) -> str:
        """A key that no other call has."""
        return f"k{next(KEYS)}"

    def seen(self, key: str) -> list[Any]:
        found: list[Any] = json.loads(self.ask(f"/seen?{key}").body)
        return found

    def wait_seen(self, key: str, count: int) -> list[Any]:
        """What the calls of a key noted, once it is so much."""

        def enough() -> list[Any] | None:
            found = self.seen(key)
            return found if len(found) >= count else None

        return eventually(enough, f"{count} notes of {key}")

    def let(self, key: str) -> None:
        assert self.ask(f"/let?{key}").status == 200

    def is_well(self) -> None:
        """The worker serves."""
        assert self.ask("/").body == b"hello"


@contextmanager
def corners(loop: str, *args: str) -> Iterator[Corners]:
    port = free_port()
    with Server("-b", f"127.0.0.1:{port}", "--asgi-loop", loop, *args, "corners") as server:
        yield Corners(server.wait_ready(), ("127.0.0.1", port))
