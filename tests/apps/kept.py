"""WebSockets with the garbage collector off; `/left` says how much of them is in memory, by the names of classes."""

import gc
import json
from collections import Counter
from typing import Any

gc.disable()
OURS = ("sdserve.gateway.asgi", "sdserve.workers.asgi", "sdserve.http", "websockets", "_asyncio", "asyncio", __name__)
LASTING = ("Head", "RateLimit")  # bounded memories


class Held:
    """Something that a handler holds."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("none")
    if scope["type"] == "http":
        ours = [type(each) for each in gc.get_objects() if str(type(each).__module__).startswith(OURS)]
        found = Counter(each.__name__ for each in ours)
        left = {name: count for name, count in found.items() if name not in LASTING}
        left["tracebacks"] = sum(type(each).__name__ == "traceback" for each in gc.get_objects())
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": json.dumps(left).encode()})
        return
    held = Held()
    scope["held"] = held
    await receive()
    path = scope["path"]
    if path == "/deny":
        await send({"type": "websocket.close"})
        return
    if path == "/early":
        raise ValueError("on purpose")
    await send({"type": "websocket.accept"})
    if path == "/raise":
        raise ValueError("on purpose")
    if path == "/close":
        await send({"type": "websocket.close", "code": 1000})
    while path == "/pour":
        await send({"type": "websocket.send", "bytes": bytes(65536)})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    if path == "/late":
        await send({"type": "websocket.close"})
