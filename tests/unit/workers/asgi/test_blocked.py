"""Whose fault it is that the event loop does not turn, whatever task it is in."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from sdserve.workers.asgi.blocked import call_of

Scope = dict[str, Any]
Application = Callable[[Scope], Awaitable[None]]


@pytest.fixture
def blocks() -> Iterator[Callable[[], None]]:
    """Something that blocks: what the handler of a signal that comes meanwhile finds is in FOUND."""
    before = signal.signal(signal.SIGUSR2, lambda signum, frame: FOUND.append(call_of(*ASKED)))
    FOUND.clear()
    yield lambda: os.kill(os.getpid(), signal.SIGUSR2)
    signal.signal(signal.SIGUSR2, before)


FOUND: list[Any] = []
ASKED: list[Any] = []


def found(application: Application) -> str | None:
    """Who is named, if two calls run `application` and the one named "second" blocks."""

    async def run(name: str, scope: Scope) -> None:
        await application(scope)

    async def serve() -> None:
        scopes = [{"type": "http", "path": name, "headers": [(b"host", b"a")]} for name in ("first", "second")]
        running = {scope["path"]: asyncio.ensure_future(run("", scope)) for scope in scopes}
        ASKED[:] = asyncio.get_running_loop(), running
        await asyncio.gather(*running.values())
        assert call_of(*ASKED) is None, "this task is nobody's"

    asyncio.run(serve())
    [name] = FOUND
    return name  # type: ignore[no-any-return]


def test_a_call_that_blocks_in_its_own_task(blocks: Callable[[], None]) -> None:
    async def application(scope: Scope) -> None:
        await asyncio.sleep(0)
        if scope["path"] == "second":
            blocks()

    assert found(application) == "second"


@pytest.mark.parametrize("copied", [False, True])
def test_one_that_blocks_in_a_task_of_a_framework(blocks: Callable[[], None], copied: bool) -> None:
    async def route(request: Any) -> None:
        if request["path"] == "second":
            blocks()

    async def endpoint(scope: Scope) -> None:
        await asyncio.sleep(0)
        await route({**scope, "app": endpoint} if copied else scope)

    async def middleware(scope: Scope) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(endpoint(dict(scope) if copied else scope))

    assert found(middleware) == "second"


def test_one_that_is_nobodys(blocks: Callable[[], None]) -> None:
    async def background() -> None:
        blocks()

    async def application(scope: Scope) -> None:
        if scope["path"] == "second":
            await asyncio.ensure_future(background())

    assert found(application) is None
