"""How a call of the application becomes a task: a real one, which has taken its first step when `start` returns.

Most calls never wait. `create_task` would cost them a turn of the loop; a coroutine without a task would break
timeouts, task groups and anyio. From Python 3.12 on tasks can start eagerly. Before that, the first step that a new
task hands to its loop is caught and taken here. Neither works within the step of another task: `start` is for callbacks
of the loop.
"""

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import Any

Step = tuple[Callable[..., object], tuple[Any, ...], contextvars.Context]


class Tasks:
    """Starts tasks on `loop`, each in a copy of the context in which this was made."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = contextvars.copy_context()
        self._caught: list[Step] = []
        self._catcher = self._catch

    def start(self, coro: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task for `coro`, done already if that never waits."""
        loop = self._loop
        context = self._context.copy()
        if loop.get_task_factory() is not None:  # the application's own: it decides
            return context.run(loop.create_task, coro)
        if sys.version_info >= (3, 12):
            return asyncio.Task(coro, loop=loop, context=context, eager_start=True)
        loop.call_soon = self._catcher  # type: ignore[method-assign, assignment]
        try:
            task = asyncio.Task(coro, loop=loop, context=context)
        finally:
            del loop.call_soon  # the class's own again
        step, args, context = self._caught.pop()
        context.run(step, *args)
        return task

    def _catch(self, step: Callable[..., object], *args: Any, context: contextvars.Context) -> None:
        self._caught.append((step, args, context))
