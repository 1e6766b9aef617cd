"""The twin of plain.py that speaks ASGI: the same paths, the same answers; DELAY (seconds) makes each request last."""

import asyncio
import os
from typing import Any

DELAY = float(os.environ.get("DELAY", "0"))


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for _ in range(2):
            what = (await receive())["type"]
            await send({"type": f"{what}.complete"})
        return
    if DELAY:
        await asyncio.sleep(DELAY)
    _, what, *rest = scope["path"].split("/")
    body = b"hello"
    if what == "environ":
        body = os.environ.get(rest[0], "").encode()
    elif what == "sleep":
        await asyncio.sleep(float(rest[0]))
    elif what == "echo":
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
    elif what == "big":
        body = bytes(int(rest[0]))
    elif what == "boom":
        raise RuntimeError("boom")
    length = b"%d" % len(body)
    headers = [(b"Content-Type", b"text/plain"), (b"Content-Length", length), (b"X-Pid", b"%d" % os.getpid())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
