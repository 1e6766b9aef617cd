"""The application of apps.py as ASGI: the same paths, the same answers."""

from typing import Any

from apps import FILLING, PIECE, PIECES, TEN, TINY  # the servers are started in this directory

CONSTANT = {"/tiny": TINY, "/any": TINY, "/ten": TEN}


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for _ in range(2):
            asked = await receive()
            await send({"type": asked["type"] + ".complete"})
        return
    path: str = scope["path"]
    if path == "/pieces":
        await start(send, PIECES * len(PIECE))
        for _ in range(PIECES * 4):
            await send({"type": "http.response.body", "body": PIECE[:16384], "more_body": True})
        await send({"type": "http.response.body"})
        return
    body = CONSTANT.get(path) or CONSTANT.get(path[: path.find("/", 1)])
    if body is None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        body += FILLING if path == "/json" else b""
    await start(send, len(body))
    await send({"type": "http.response.body", "body": body})


async def start(send: Any, length: int) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
