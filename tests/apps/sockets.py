"""WebSockets of every kind, by path. What handlers were told is at /told, by a name that the client gives them."""

import asyncio
import json
import time
from typing import Any

told: dict[str, list[Any]] = {}
room: set[Any] = set()
gate = asyncio.Event()


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        if scope["path"] == "/open":
            gate.set()
        said = {"/told": told, "/cpu": time.process_time()}.get(scope["path"], "hello")
        body = json.dumps(said).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})
    else:
        assert scope["type"] == "websocket"
        heard = told.setdefault(scope["query_string"].decode(), [])
        try:
            await KINDS[scope["path"]](scope, receive, send, heard)
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise
        except OSError as error:
            heard.append(f"OSError: {error}")
            raise


async def opened(receive: Any, send: Any, **how: Any) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **how})


async def echo(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await opened(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    heard.append(message)
    heard.append(await receive())


async def size(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """Notes how long messages are."""
    await opened(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        heard.append(len(message["bytes"]))


async def drop(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """Notes how long a message is, and keeps nothing of it."""
    await opened(receive, send)
    heard.append(len((await receive())["bytes"]))
    await receive()


async def hold(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """Keeps one message, and receives no other."""
    await opened(receive, send)
    message = await receive()
    heard.append(message["type"])
    await asyncio.sleep(3600)


async def chat(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await opened(receive, send)
    room.add(send)
    while (message := await receive())["type"] == "websocket.receive":
        for each in list(room):
            await each({"type": "websocket.send", "text": message["text"]})
    room.discard(send)


async def show(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """The scope, and the second of the subprotocols that are offered."""
    await opened(receive, send, subprotocol=[*scope["subprotocols"], None, None][1], headers=[(b"x-own", b"\xe9")])
    shown = {key: value for key, value in scope.items() if key != "state"}
    await send({"type": "websocket.send", "text": json.dumps(shown, default=bytes.decode)})


async def close(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await opened(receive, send)
    await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
    heard.append(await receive())
    for kind in ("websocket.send", "websocket.close"):
        try:
            await send({"type": kind, "text": ""})
        except OSError as error:
            heard.append(type(error).__name__)


async def twice(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await opened(receive, send)
    await send({"type": "websocket.close"})
    await send({"type": "websocket.close"})


async def returns(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await opened(receive, send)


async def raises(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await opened(receive, send)
    raise ValueError("on purpose")


async def raises_early(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    raise ValueError("on purpose")


async def returns_early(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await receive()


async def deny(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await receive()
    await send({"type": "websocket.close"})
    heard.append(await receive())


async def denial(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await receive()
    assert "websocket.http.response" in scope["extensions"]
    fields = [(b"www-authenticate", b"Basic")]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": fields})
    await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"are you?"})
    heard.append(await receive())


async def forged(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await opened(receive, send, headers=[(b"x", b"a\r\nSet-Cookie: b")])


async def unordered(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await receive()
    for message in (
        {"type": "websocket.send", "text": "early"},
        {"type": "http.response.start", "status": 200},
        {"type": "websocket.accept", "subprotocol": "a b"},
        {"type": "websocket.accept"},
        {"type": "websocket.accept"},
        {"type": "websocket.http.response.start", "status": 401},
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": "both", "bytes": b"both"},
        {"type": "websocket.send", "text": b"bytes"},
        {"type": "websocket.send", "bytes": "text"},
        {"type": "websocket.close", "code": 1006},
    ):
        try:
            await send(message)
        except Exception as error:  # noqa: BLE001 - which one is what is looked at
            heard.append(f"{type(error).__name__}: {error}")
        else:
            heard.append("sent")
    await send({"type": "websocket.send", "bytes": bytearray(b"good")})


async def pour(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """64 messages of 256 kB; `heard` is how many had room."""
    await opened(receive, send)
    heard.append(0)
    for number in range(64):
        await send({"type": "websocket.send", "bytes": bytes([number]) * 262144})
        heard[0] += 1


async def sleepy(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """Receives nothing before the gate is open, then echoes."""
    await opened(receive, send)
    await send({"type": "websocket.send", "text": "ready"})
    await gate.wait()
    count = 0
    while (message := await receive())["type"] == "websocket.receive":
        assert int(message["text"].partition(" ")[0]) == count
        count += 1
    heard.append(count)


async def hesitate(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """Accepts when the gate is open."""
    await receive()
    heard.append("asked")
    await gate.wait()
    await send({"type": "websocket.accept"})
    heard.append(await receive())


async def deaf(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """Takes no hint."""
    await opened(receive, send)
    await asyncio.sleep(3600)


KINDS = {f"/{name}": handler for name, handler in list(globals().items()) if asyncio.iscoroutinefunction(handler)}
KINDS["/"] = echo
