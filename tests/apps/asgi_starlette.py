"""Starlette with what it offers, and FastAPI mounted at /api: routes, forms, streams, files, events, later tasks."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, UploadFile
from pydantic import BaseModel
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).parent
LARGE = Path(tempfile.mkdtemp(prefix="starlette-")) / "large"
SEEN: list[str] = []


def item(request: Request) -> Response:
    """Runs in a thread."""
    return JSONResponse({"number": request.path_params["number"], "url": str(request.url_for("item", number=7))})


async def upload(request: Request) -> Response:
    async with request.form() as form:
        file: Any = form["file"]
        data = await file.read()
        return JSONResponse([form["name"], file.filename, hashlib.sha256(data).hexdigest()])


async def raw(request: Request) -> Response:
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return PlainTextResponse(str(size))


async def stream(request: Request) -> Response:
    async def numbers() -> AsyncIterator[str]:
        for number in range(1000):
            yield f"{number}\n"

    return StreamingResponse(numbers(), media_type="text/plain")


async def endless(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.001)
        finally:
            SEEN.append("endless is over")

    return StreamingResponse(pieces())


async def events(request: Request) -> Response:
    async def told() -> AsyncIterator[dict[str, str]]:
        try:
            yield {"event": "first", "data": "1"}
            yield {"event": "second", "data": "2"}
            if "more" in request.query_params:
                await asyncio.sleep(600)
        finally:
            SEEN.append("events are over")

    return EventSourceResponse(told())


async def background(request: Request) -> Response:
    async def later(what: str) -> None:
        await asyncio.sleep(0.01)
        SEEN.append(what)

    return PlainTextResponse("at once", background=BackgroundTask(later, "background is over"))


async def state(request: Request) -> Response:
    return PlainTextResponse(request.state.pool)


async def seen(request: Request) -> Response:
    return JSONResponse(SEEN)


async def fails(request: Request) -> Response:
    raise RuntimeError("in a route")


class Signed(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["X-Signed"] = "yes"
        return response


class Collects:
    """Holds the start until it has the whole body, and knows no messages but these two, as many do that were written
    by hand."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        start: Any = None
        pieces: list[bytes] = []

        async def collect(message: Any) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif message["type"] == "http.response.body":
                pieces.append(message.get("body", b""))
                if not message.get("more_body", False):
                    await send(start)
                    await send({"type": "http.response.body", "body": b"".join(pieces)})

        await self._app(scope, receive, collect)


api = FastAPI()


class Item(BaseModel):
    name: str
    price: float


async def session() -> AsyncIterator[str]:
    SEEN.append("session begins")
    yield "session"
    SEEN.append("session ends")


@api.post("/items")
async def make(item: Item, of: Annotated[str, Depends(session)], later: BackgroundTasks) -> dict[str, Any]:
    later.add_task(SEEN.append, "task is over")
    return {"name": item.name, "twice": item.price * 2, "of": of}


@api.get("/sync/{number}")
def sync(number: int) -> dict[str, int]:
    return {"number": number}


@api.post("/files")
async def files(several: list[UploadFile]) -> list[int]:
    return [len(await each.read()) for each in several]


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    LARGE.write_bytes(bytes(range(256)) * 8192)
    print("lifespan begins", flush=True)
    yield {"pool": "of lifespan"}
    LARGE.unlink()
    LARGE.parent.rmdir()
    print("lifespan ends", flush=True)


def file(request: Request) -> Response:
    return FileResponse(LARGE, filename="large.bin")


routes = [
    Route("/", lambda request: PlainTextResponse("hello")),
    Route("/items/{number:int}", item, name="item"),
    *(Route(f"/{each.__name__}", each) for each in (stream, endless, events, background, state, seen, fails, file)),
    *(Route(f"/{each.__name__}", each, methods=["POST"]) for each in (upload, raw)),
    Mount("/static", StaticFiles(directory=HERE)),
    Mount("/api", api),
    Mount(
        "/wrapped",
        Starlette(routes=[Route("/stream", stream), Route("/endless", endless), Route("/file", file)]),
        middleware=[
            Middleware(Signed),
            Middleware(GZipMiddleware, minimum_size=100),
        ],
    ),
    Mount("/collected", Starlette(routes=[Route("/file", file)]), middleware=[Middleware(Collects)]),
]
application = Starlette(routes=routes, lifespan=lifespan)
