"""Ends its calls in every way, with the garbage collector off; `/left` says what there is of them in memory."""

import asyncio
import gc
import json
import os
import types
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

gc.disable()
Scope = dict[str, Any]
OURS = ("sdserve.gateway", "sdserve.workers", "sdserve.http", "_io", "socket", "_socket", "_asyncio", __name__)
# Bounded memories, and what turns with the loop.
NOT_OF_REQUESTS = ("Head", "RateLimit")
LARGE = 4_000_000


class Held:
    """Something that a request holds: it is there for as long as anything of that request is."""


class Call:
    def __init__(self, scope: Scope, receive: Any, send: Any) -> None:
        self.scope, self.receive, self.raw, self.held = scope, receive, send, Held()

    async def start(self, *fields: tuple[bytes, bytes], **more: Any) -> None:
        await self.raw({"type": "http.response.start", "status": 200, "headers": list(fields), **more})

    async def send(self, data: bytes = b"", more: bool = False) -> None:
        await self.raw({"type": "http.response.body", "body": data, "more_body": more})

    async def read(self) -> None:
        while (await self.receive()).get("more_body"):
            pass


async def answers(call: Call) -> None:
    await call.start()
    await call.send(b"hello")


async def pours(call: Call) -> None:
    await call.start()
    for _ in range(100):
        await call.send(bytes(100_000), more=True)
    await call.send()


async def large(call: Call) -> None:
    await call.start()
    await call.send(bytes(LARGE))


async def file(call: Call) -> None:
    await call.start()
    await call.raw({"type": "http.response.pathsend", "path": __file__})


async def waits(call: Call) -> None:
    await call.start()
    await call.send(b"begun", more=True)
    while (await call.receive())["type"] != "http.disconnect":
        pass


async def sleeps(call: Call) -> None:
    """Streams without a look at its client."""
    await call.start()
    while True:
        await call.send(b"x" * 1000, more=True)
        await asyncio.sleep(0.001)


async def group(call: Call) -> None:
    """As frameworks do: one task streams, another one waits for the client's end."""
    await call.start()

    async def stream() -> None:
        while True:
            await call.send(b"x" * 1000, more=True)
            await asyncio.sleep(0.001)

    streaming = asyncio.ensure_future(stream())
    while (await call.receive())["type"] != "http.disconnect":
        pass
    streaming.cancel()
    await asyncio.wait([streaming])


async def reads(call: Call) -> None:
    await call.read()
    await answers(call)


async def reads_late(call: Call) -> None:
    await call.start()
    await call.send(b"begun", more=True)
    await call.read()
    await call.send(b"over")


async def ignores(call: Call) -> None:
    await answers(call)


async def fails(call: Call) -> None:
    raise RuntimeError("at once")


async def fails_late(call: Call) -> None:
    await call.start()
    await call.send(b"hello", more=True)
    raise RuntimeError("behind the head")


async def fails_after(call: Call) -> None:
    await answers(call)
    await asyncio.sleep(0)
    raise RuntimeError("behind the answer")


async def fails_chained(call: Call) -> None:
    try:
        await fails(call)
    except RuntimeError as error:
        raise ValueError("of that") from error


async def cancels_itself(call: Call) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


async def forges(call: Call) -> None:
    await call.start((b"x-a", b"b\r\n"))


async def nothing(call: Call) -> None:
    pass


async def part(call: Call) -> None:
    await call.start((b"content-length", b"10"))
    await call.send(b"hello")


async def behind(call: Call) -> None:
    """Goes on for a little behind its answer, and receives."""
    await answers(call)
    await asyncio.sleep(0.01)
    await call.receive()
    await call.send(b"more")


async def trailers(call: Call) -> None:
    await call.start(trailers=True)
    await call.send(b"hello")
    await call.raw({"type": "http.response.trailers", "headers": []})


async def spawns(call: Call) -> None:
    """Leaves a task behind that ends by itself."""
    task = asyncio.ensure_future(asyncio.sleep(0.01))
    SPAWNED.add(task)
    task.add_done_callback(SPAWNED.discard)
    await answers(call)


SPAWNED: set[Any] = set()
WAYS: dict[str, Callable[[Call], Awaitable[None]]] = {
    **{each.__name__: each for each in (answers, pours, large, file, waits, sleeps, group, reads, reads_late, ignores)},
    **{
        each.__name__: each for each in (fails, fails_late, fails_after, fails_chained, cancels_itself, forges, nothing)
    },
    **{each.__name__: each for each in (part, behind, trailers, spawns)},
}


def left() -> dict[str, int]:
    """How many objects there are of the server's, the application's, asyncio's, of exceptions, and descriptors."""
    kinds = Counter(type(each) for each in gc.get_objects())
    ours = {kind: count for kind, count in kinds.items() if str(kind.__module__).startswith(OURS)}
    ours |= {kind: count for kind, count in kinds.items() if issubclass(kind, BaseException | types.TracebackType)}
    ours |= {kind: count for kind, count in kinds.items() if kind in (types.CoroutineType, types.FrameType)}
    found = {kind.__qualname__: count for kind, count in ours.items() if kind.__name__ not in NOT_OF_REQUESTS}
    return found | {"tasks": len(asyncio.all_tasks()), "descriptors": len(os.listdir("/proc/self/fd"))}


async def application(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    call, way = Call(scope, receive, send), scope["path"].strip("/")
    if way != "left":
        await WAYS[way](call)
        return
    text = json.dumps(left()).encode()
    await call.start()
    await call.send(text)
