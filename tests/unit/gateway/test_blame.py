"""Where code hangs: the innermost line of the application's own."""

import asyncio
from collections.abc import Generator
from typing import Any

from sdserve.gateway.blame import waiting


class Circular:
    """Waits for what waits for it, as an object may that keeps its owner."""

    def __init__(self) -> None:
        self.owner: object = None

    def __await__(self) -> Generator[Any, None, None]:
        return Turn(self)


class Turn(Generator[Any, None, None]):
    def __init__(self, circular: Circular) -> None:
        self.owner = circular.owner

    def send(self, value: None) -> Any:
        return None

    def throw(self, *args: Any) -> Any:
        raise StopIteration


async def waits(circular: Circular) -> None:
    await circular


def test_an_object_that_refers_to_who_awaits_it() -> None:
    circular = Circular()
    coro = waits(circular)
    circular.owner = coro
    coro.send(None)
    assert waiting(coro).startswith(f"{__file__}, line ")
    coro.close()


def test_a_coroutine_that_waits_for_another() -> None:
    async def inner() -> None:
        await asyncio.sleep(1000)

    async def outer() -> None:
        await inner()

    async def look() -> str:
        task = asyncio.ensure_future(outer())
        await asyncio.sleep(0)
        try:
            return waiting(task.get_coro())
        finally:
            task.cancel()

    assert asyncio.run(look()) == f"{__file__}, line {inner.__code__.co_firstlineno + 1}"
