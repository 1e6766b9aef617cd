"""The twin of web.py: an ASGI application with the same answers at the same paths, for tests of both kinds of workers.

It takes the whole body before it answers, as a WSGI worker does before it calls its application; but not at `/ignore`,
and at `/swallow` it keeps nothing of it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

TEXT = (b"Content-Type", b"text/plain")
WEB = Path(__file__).with_name("web.py")
MEETINGS: dict[int, asyncio.Barrier] = {}


class Left(Exception):
    """The client did, amid its body."""


class Call:
    def __init__(self, scope: Scope, send: Send, body: bytes) -> None:
        self.scope, self._send, self.body = scope, send, body
        self.query: str = scope["query_string"].decode()

    async def start(self, *fields: tuple[bytes, bytes], status: int = 200) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": [TEXT, *fields]})

    async def send(self, data: bytes = b"", *, more: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def file(self, path: Path) -> None:
        await self._send({"type": "http.response.pathsend", "path": str(path)})


async def hello(call: Call) -> None:
    await call.start((b"Content-Length", b"5"))
    await call.send(b"hello")


async def environ(call: Call) -> None:
    """What a CGI application would be told, one a line."""
    scope = call.scope
    client, server = scope["client"] or ("", ""), scope["server"]
    told: dict[str, Any] = {"REQUEST_METHOD": scope["method"], "PATH_INFO": scope["path"]}
    told |= {"QUERY_STRING": call.query, "SCRIPT_NAME": scope["root_path"]}
    told |= {"SERVER_PROTOCOL": f"HTTP/{scope['http_version']}", "SERVER_NAME": server[0], "SERVER_PORT": server[1]}
    told |= {"REMOTE_ADDR": client[0], "REMOTE_PORT": client[1]}
    told["wsgi.url_scheme"] = scope["scheme"]
    for name, value in scope["headers"]:
        key = "HTTP_" + name.decode().upper().replace("-", "_")
        key = key.removeprefix("HTTP_") if key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH") else key
        between = "; " if key == "HTTP_COOKIE" else ","
        told[key] = f"{told[key]}{between}{value.decode('latin-1')}" if key in told else value.decode("latin-1")
    await call.start()
    await call.send("".join(f"{key}={value}\n" for key, value in sorted(told.items())).encode("latin-1"))


async def echo(call: Call) -> None:
    await call.start((b"X-Length", b"%d" % len(call.body)))
    await call.send(call.body)


async def plain_echo(call: Call) -> None:
    await call.start((b"Content-Length", b"%d" % len(call.body)))
    await call.send(call.body)


async def ignore(call: Call) -> None:
    await hello(call)


async def stream(call: Call) -> None:
    await call.start()
    for number in range(5):
        await call.send(b"%d " % number, more=True)
    await call.send()


async def write(call: Call) -> None:
    await call.start()
    await call.send(b"one ", more=True)
    await call.send(b"two ", more=True)
    await call.send(b"three")


async def nothing(call: Call) -> None:
    await call.start(status=204)
    await call.send()


async def unchanged(call: Call) -> None:
    await call.start((b"ETag", b'"x"'), status=304)
    await call.send()


async def file(call: Call) -> None:
    await call.start()
    await call.file(WEB)


async def buffer(call: Call) -> None:
    await call.start()
    await call.send(bytearray(b"no file"))


async def big(call: Call) -> None:
    """As many MiB as the query says, made as they go."""
    await call.start()
    for _ in range(16 * int(call.query)):
        await call.send(b"x" * 65536, more=True)
    await call.send()


async def sleep(call: Call) -> None:
    await asyncio.sleep(float(call.query))
    await hello(call)


async def meet(call: Call) -> None:
    """Answers when as many calls as the query says are in here at the same time."""
    parties = int(call.query)
    await asyncio.wait_for(MEETINGS.setdefault(parties, asyncio.Barrier(parties)).wait(), 60)
    await hello(call)


async def pid(call: Call) -> None:
    await call.start((b"X-Pid", b"%d" % os.getpid()))
    await call.send(b"%d" % os.getpid())


async def short(call: Call) -> None:
    await call.start((b"Content-Length", b"10"))
    await call.send(b"hello")


async def long(call: Call) -> None:
    await call.start((b"Content-Length", b"5"))
    await call.send(b"hello, world")


async def early(call: Call) -> None:
    raise RuntimeError("early")


async def late(call: Call) -> None:
    await call.start()
    await call.send(b"one ", more=True)
    raise RuntimeError("late")


async def leave(call: Call) -> None:
    raise SystemExit(1)


async def bad_header(call: Call) -> None:
    await call.start((b"X-A", b"b\r\nSet-Cookie: forged=1"))
    await call.send(b"hello")


async def bad_status(call: Call) -> None:
    await call.start(status=20)
    await call.send(b"hello")


async def mute(call: Call) -> None:
    await call.send(b"hello")


PAGES: dict[str, Callable[[Call], Awaitable[None]]] = {
    **{page.__name__: page for page in (hello, environ, echo, plain_echo, ignore, stream, write, nothing, unchanged)},
    **{page.__name__: page for page in (file, buffer, big, sleep, meet, pid, short, long, early, late, leave)},
    **{page.__name__: page for page in (bad_header, bad_status, mute)},
    "swallow": hello,
}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    name = scope["path"].strip("/") or "hello"
    pieces, more = [], name != "ignore"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Left
        if name != "swallow":
            pieces.append(message["body"])
        more = message["more_body"]
    await PAGES[name](Call(scope, send, b"".join(pieces)))
