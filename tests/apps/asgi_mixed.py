"""What plain_asgi.py answers, and what has no end: `/events`, two events a second, and WebSockets that echo."""

import asyncio
import os
from typing import Any

from plain import application as plain


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-pid", b"%d" % os.getpid())]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
    elif scope["path"] == "/events":
        await events(receive, send)
    else:
        await plain(scope, receive, send)


async def events(receive: Any, send: Any) -> None:
    """Until the client goes, or is said to have gone: then a last event and a proper end."""
    headers = [(b"content-type", b"text/event-stream"), (b"x-pid", b"%d" % os.getpid())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    gone = asyncio.create_task(_gone(receive))
    while not gone.done():
        await send({"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True})
        await asyncio.wait([gone], timeout=0.5)
    await send({"type": "http.response.body", "body": b"data: bye\n\n"})


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
