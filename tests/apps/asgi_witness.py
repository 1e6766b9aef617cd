"""The twin of witness.py, an ASGI application: a line of JSON for each request, in the file that $WITNESS names."""

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
PATH = os.environ["WITNESS"]


async def application(
    scope: Scope, receive: Callable[[], Awaitable[Scope]], send: Callable[[Scope], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    target, size, more = scope["raw_path"].decode(), 0, True
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode()
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    with open(PATH, "a") as file:
        file.write(json.dumps([scope["method"], target, size]) + "\n")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
