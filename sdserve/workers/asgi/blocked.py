"""Which call is the event loop in? Asked when it does not turn, by a signal handler on top of what blocks it.

A framework may run a part of a call in a task of its own: middleware does, task groups do. Such a task is recognised by
the scope in the frames of its stack: functions pass it on, as it is or as a copy, and all copies share one list of
headers, which no other call has.
"""

import asyncio
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any, TypeVar

C = TypeVar("C")


def call_of(loop: asyncio.AbstractEventLoop, running: Mapping[C, "asyncio.Task[Any] | None"]) -> C | None:
    """The call that `loop` is in, of those that run in these tasks; None if it is in none, or that is unknown. To be
    called in the thread of the loop."""
    task = asyncio.current_task(loop)
    if task is None:
        return None
    tasks = {each: call for call, each in running.items() if each is not None}
    if task in tasks:
        return tasks[task]
    scopes = {id(headers): call for each, call in tasks.items() if (headers := _headers(each)) is not None}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        for value in frame.f_locals.values():
            if type(value) is dict and id(value.get("headers")) in scopes:
                return scopes[id(value["headers"])]
        frame = frame.f_back
    return None


def _headers(task: "asyncio.Task[Any]") -> Any:
    """Those of the call that a task was started with, whose coroutine has a `scope`."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    scope = frame.f_locals.get("scope") if frame is not None else None
    return scope.get("headers") if type(scope) is dict else None
