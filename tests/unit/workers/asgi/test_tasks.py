"""How a call becomes a task: it has taken its first step, in a context of its own, and is what libraries know."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

import pytest

from sdserve.log import Logger
from sdserve.workers.asgi.extra import new_event_loop
from sdserve.workers.asgi.tasks import Tasks
from tests.support.corners import LOOPS

VALUE = contextvars.ContextVar[str]("VALUE", default="nobody")
Coro = Coroutine[Any, Any, None]


def in_turn(kind: str, story: Callable[[asyncio.AbstractEventLoop, Tasks], Coro | None]) -> None:
    """Runs `story` in a callback of a loop, then the coroutine that it gives back."""
    with closing(new_event_loop(kind, Logger())) as loop:
        made: list[Coro | None] = []
        failed: list[BaseException] = []

        def turn() -> None:
            try:
                made.append(story(loop, Tasks(loop)))
            except BaseException as error:  # noqa: BLE001 - raised again below
                failed.append(error)
            loop.stop()

        loop.call_soon(turn)
        loop.run_forever()
        if failed:
            raise failed[0]
        if (rest := made[0]) is not None:
            loop.run_until_complete(asyncio.wait_for(rest, 20))


@pytest.mark.parametrize("kind", LOOPS)
def test_what_never_waits_is_over_when_it_is_started(kind: str) -> None:
    seen: list[Any] = []

    async def call() -> None:
        seen.append(asyncio.current_task())

    def story(loop: asyncio.AbstractEventLoop, tasks: Tasks) -> None:
        task = tasks.start(call())
        assert task.done() and seen == [task]
        assert asyncio.current_task(loop) is None
        assert "call_soon" not in vars(loop), "the loop's own again"

    in_turn(kind, story)


@pytest.mark.parametrize("kind", LOOPS)
def test_what_waits_goes_on_and_can_be_cancelled(kind: str) -> None:
    steps: list[str] = []

    async def call(bell: asyncio.Event) -> None:
        steps.append("begun")
        async with asyncio.timeout(20):
            await bell.wait()
        steps.append("rung")

    def story(loop: asyncio.AbstractEventLoop, tasks: Tasks) -> Coro:
        bell = asyncio.Event()
        one, two = tasks.start(call(bell)), tasks.start(call(bell))
        assert steps == ["begun"] * 2 and not one.done()

        async def rest() -> None:
            assert {one, two} <= asyncio.all_tasks()
            two.cancel()
            bell.set()
            await asyncio.wait([one, two])
            assert two.cancelled() and steps == ["begun", "begun", "rung"]

        return rest()

    in_turn(kind, story)


@pytest.mark.parametrize("kind", LOOPS)
def test_each_call_has_a_context_of_its_own(kind: str) -> None:
    seen: list[str] = []

    async def call(name: str) -> None:
        seen.append(VALUE.get())
        VALUE.set(name)
        await asyncio.sleep(0)
        seen.append(VALUE.get())

    def story(loop: asyncio.AbstractEventLoop, tasks: Tasks) -> Coro:
        started = [tasks.start(call(name)) for name in "ab"]

        async def rest() -> None:
            await asyncio.wait(started)
            assert sorted(seen) == ["a", "b", "nobody", "nobody"] and VALUE.get() == "nobody"

        return rest()

    in_turn(kind, story)


@pytest.mark.parametrize("kind", LOOPS)
def test_the_applications_task_factory_decides(kind: str) -> None:
    made: list[Any] = []

    def factory(loop: Any, coro: Any, **more: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **more)

    async def call() -> None:
        made.append(VALUE.get())

    def story(loop: asyncio.AbstractEventLoop, tasks: Tasks) -> Coro:
        loop.set_task_factory(factory)
        VALUE.set("the turn's")
        task = tasks.start(call())
        assert len(made) == 1 and not task.done(), "it takes its first step when the loop comes to it"

        async def rest() -> None:
            await task
            assert made[-1] == "nobody"

        loop.set_task_factory(None)
        return rest()

    in_turn(kind, story)


@pytest.mark.parametrize("kind", LOOPS)
def test_what_is_over_leaves_nothing_and_what_it_raises_is_its_own(kind: str) -> None:
    class Kept:
        pass

    async def call(kept: Kept) -> None:
        raise ValueError(str(kept))

    def story(loop: asyncio.AbstractEventLoop, tasks: Tasks) -> None:
        gc.disable()
        try:
            kept = Kept()
            there = weakref.ref(kept)
            task = tasks.start(call(kept))
            assert isinstance(task.exception(), ValueError)
            del kept, task
            assert there() is None and not tasks._caught
        finally:
            gc.enable()

    in_turn(kind, story)
