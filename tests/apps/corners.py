"""An ASGI application with a path for each corner of the protocol; `/seen?KEY` tells what the calls of `?KEY` noted.

What a call learns of its client comes when its answer is over, or was never made: so it is written down here, and asked
for afterwards. `/let?KEY` has a call go on that waits for that.
"""

import asyncio
import contextvars
import json
import os
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

TEXT = [(b"Content-Type", b"text/plain")]
HERE = Path(__file__)
EMPTY = Path(tempfile.gettempdir()) / f"corners-empty-{os.getppid()}"
SEEN: dict[str, list[Any]] = defaultdict(list)
GATES: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
LAST = contextvars.ContextVar[str]("last", default="nobody")


class Left(Exception):
    """The client did, amid its body; as frameworks put it, this has nothing to do with the server's own exceptions."""


class Call:
    """One call of the application."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.key = scope["query_string"].decode()

    def note(self, what: Any) -> None:
        SEEN[self.key].append(what)

    async def start(self, *fields: tuple[bytes, bytes], status: Any = 200, **more: Any) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": [*TEXT, *fields], **more})

    async def body(self, data: Any = b"", more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, data: bytes, *fields: tuple[bytes, bytes], status: int = 200) -> None:
        await self.start((b"Content-Length", b"%d" % len(data)), *fields, status=status)
        await self.body(data)

    async def read(self) -> bytes:
        """The whole body."""
        pieces, more = [], True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Left
            pieces.append(message["body"])
            more = message["more_body"]
        return b"".join(pieces)

    async def noted(self, what: Callable[[], Awaitable[Any]]) -> None:
        """Notes what comes of a call: its result, or the classes of the exception."""
        try:
            self.note(await what())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noted
            self.note([each.__name__ for each in type(error).__mro__[:-2]])


# --- requests ---------------------------------------------------------------------------------------------------------


async def scope(call: Call) -> None:
    def plain(value: Any) -> Any:
        return value.decode("latin-1") if isinstance(value, bytes) else repr(value)

    await call.answer(json.dumps(call.scope, default=plain).encode())


async def echo(call: Call) -> None:
    await call.answer(await call.read())


async def messages(call: Call) -> None:
    """What comes, up to the last of the body: the size of each, and whether there is more."""
    found: list[tuple[int, bool]] = []
    while not found or found[-1][1]:
        message = await call.receive()
        found.append((len(message["body"]), message["more_body"]))
    await call.answer(json.dumps(found).encode())


async def ignore(call: Call) -> None:
    await call.answer(b"ignored")


async def after_body(call: Call) -> None:
    """Waits for what comes behind the body, before an answer and after it."""
    await call.read()
    waiting = asyncio.ensure_future(call.receive())
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    call.note(len(done))
    await call.answer(b"read")
    call.note(await waiting)
    call.note(await call.receive())


async def waits(call: Call) -> None:
    """Waits for the client's end, and never answers."""
    await call.read()
    call.note("waits")
    await call.noted(call.receive)


async def reads_on(call: Call) -> None:
    """Reads a body that comes in pieces until its client is gone."""
    while True:
        message = await call.receive()
        call.note(message["type"])
        if message["type"] == "http.disconnect":
            break


async def both(call: Call) -> None:
    """Begins its answer before it has read the body, and sends that back as it comes."""
    await call.start()
    await call.body(b"begun ", more=True)
    more = True
    while more:
        message = await call.receive()
        more = message.get("more_body", False)
        await call.body(message.get("body", b""), more=more)


async def two_ways(call: Call) -> None:
    """Sends more than any buffer takes, while another task waits for the rest of the body."""
    call.note(len((await call.receive())["body"]))
    await call.start()
    sending = asyncio.create_task(call.body(bytes(8_000_000), more=True))
    await call.noted(call.receive)
    await call.noted(lambda: sending)


async def slowly(call: Call) -> None:
    """Begins to read when it is let to."""
    call.note("waits")
    await GATES[call.key].wait()
    await call.answer(b"%d" % len(await call.read()))


# --- answers ----------------------------------------------------------------------------------------------------------


async def stream(call: Call) -> None:
    await call.start()
    for number in range(5):
        await call.body(b"%d " % number, more=True)
    await call.body()


async def sized_pieces(call: Call) -> None:
    """Slowly: meanwhile its client may say that it has asked for everything."""
    await call.start((b"Content-Length", b"10"))
    for number in range(5):
        await call.body(b"%d " % number, more=True)
        await asyncio.sleep(0.02)
    await call.body()


async def nothing(call: Call) -> None:
    pass


async def start_only(call: Call) -> None:
    await call.start((b"X-A", b"never seen"))


async def piece_only(call: Call) -> None:
    await call.start()
    await call.body(b"one", more=True)


async def body_only(call: Call) -> None:
    await call.body(b"hello")


async def start_twice(call: Call) -> None:
    await call.start()
    await call.start()


async def start_again(call: Call) -> None:
    """In a stream, and goes on as if nothing had been."""
    await call.start()
    await call.body(b"one ", more=True)
    await call.noted(call.start)
    await call.body(b"two")


async def unknown(call: Call) -> None:
    await call.send({"type": "http.response.push", "path": "/"})


async def unknown_caught(call: Call) -> None:
    """Around the start, as one does who catches whatever sending raises."""
    for kind in ("push", "debug", "push"):
        await call.noted(partial(call.send, {"type": f"http.response.{kind}"}))
    if call.key == "started":
        await call.start()


async def no_type(call: Call) -> None:
    await call.send({"status": 200})


async def after_last(call: Call) -> None:
    await call.answer(b"hello")
    await call.body(b"more of it", more=True)
    await call.start()
    await call.body(b"another")


async def raises(call: Call) -> None:
    raise RuntimeError("before all")


async def leaves(call: Call) -> None:
    raise SystemExit(7)


async def raises_started(call: Call) -> None:
    await call.start((b"X-A", b"never seen"))
    raise RuntimeError("behind the start")


async def raises_late(call: Call) -> None:
    await call.start()
    await call.body(b"one ", more=True)
    raise RuntimeError("late")


async def raises_sized(call: Call) -> None:
    await call.start((b"Content-Length", b"10"))
    await call.body(b"one ", more=True)
    raise RuntimeError("amid its length")


async def raises_after(call: Call) -> None:
    await call.answer(b"hello")
    raise RuntimeError("behind the answer")


async def long(call: Call) -> None:
    await call.start((b"Content-Length", b"5"))
    await call.body(b"hello, world")


async def long_pieces(call: Call) -> None:
    await call.start((b"Content-Length", b"5"))
    for _ in range(3):
        await call.body(b"hel", more=True)
    await call.body()


async def short(call: Call) -> None:
    await call.start((b"Content-Length", b"10"))
    await call.body(b"hello")


async def short_pieces(call: Call) -> None:
    await call.start((b"Content-Length", b"10"))
    await call.body(b"hello", more=True)
    await call.body()


async def no_content(call: Call) -> None:
    await call.start(status=204)
    await call.body(b"of a 204")


async def not_modified(call: Call) -> None:
    await call.start((b"Content-Length", b"7"), (b"ETag", b'"x"'), status=304)
    await call.body(b"of a 304")


async def status(call: Call) -> None:
    """The query is the status, as Python has it."""
    await call.start(status=json.loads(call.scope["query_string"]))
    await call.body(b"hello")


async def names(call: Call) -> None:
    fields = [(b"X-Upper", b"1"), (b"x-lower", b"2"), (b"X-uPPer", b"3"), (b"Set-Cookie", b"a"), (b"set-cookie", b"b")]
    await call.start(*fields, (b"x-latin", "é".encode("latin-1")), (b"x-empty", b""))
    await call.body(b"hello")


WRONG: dict[str, list[Any]] = {
    "crlf": [(b"x-a", b"b\r\nset-cookie: forged")],
    "crlf_name": [(b"x-a: b\r\nset-cookie", b"forged")],
    "nul": [(b"x-a", b"\0")],
    "space": [(b"x a", b"b")],
    "str_name": [("x-a", b"b")],
    "str_value": [(b"x-a", "b")],
    "int_value": [(b"content-length", 5)],
    "triple": [(b"x-a", b"b", b"c")],
    "no_pair": [b"x-a"],
    "two_lengths": [(b"content-length", b"5"), (b"content-length", b"6")],
    "bad_length": [(b"content-length", b"+5")],
}


async def wrong(call: Call) -> None:
    await call.start(*WRONG[call.key])
    await call.body(b"hello")


async def wrong_then_right(call: Call) -> None:
    """Answers, though its first head could not be sent."""
    await call.noted(lambda: call.start(status="200"))
    await call.answer(b"right")


async def lists(call: Call) -> None:
    """Fields and their pairs may be any iterable."""
    fields = ([b"x-%d" % number, b"v"] for number in range(3))
    await call.send({"type": "http.response.start", "status": 200, "headers": fields})
    await call.body(b"hello")


async def bare(call: Call) -> None:
    """Messages with nothing that may be left out."""
    await call.send({"type": "http.response.start", "status": 200})
    await call.send({"type": "http.response.body"})


async def connection(call: Call) -> None:
    """What belongs to the connection is the server's to say."""
    fields = [(b"Transfer-Encoding", b"chunked"), (b"Keep-Alive", b"timeout=5"), (b"Upgrade", b"h2c")]
    await call.start(*fields, (b"Connection", b"keep-alive"))
    await call.body(b"hello")


async def closes(call: Call) -> None:
    await call.answer(b"hello", (b"connection", b"close"))


BODIES: dict[str, Any] = {
    "bytearray": bytearray(b"hello"),
    "memoryview": memoryview(b"hello"),
    "str": "hello",
    "none": None,
    "int": 5,
}


async def kinds(call: Call) -> None:
    await call.start()
    await call.body(BODIES[call.key])


async def changes(call: Call) -> None:
    """Uses one buffer for all it sends."""
    buffer = bytearray(60_000)
    await call.start()
    for number in range(60):
        buffer[:] = bytes([65 + number % 26]) * len(buffer)
        await call.body(buffer, more=True)
    await call.body()


async def returns(call: Call) -> Any:
    await call.answer(b"hello")
    return ["a result"]


# --- extensions -------------------------------------------------------------------------------------------------------


async def trailers(call: Call) -> None:
    await call.start(trailers=True)
    await call.body(b"hello", more=True)
    await call.body(b", world")
    await call.send({"type": "http.response.trailers", "headers": [(b"X-Sum", b"1")], "more_trailers": True})
    await call.send({"type": "http.response.trailers", "headers": [(b"X-Time", b"2")]})
    call.note("sent")


async def trailers_of_nothing(call: Call) -> None:
    await call.start(trailers=True)
    await call.body()
    await call.send({"type": "http.response.trailers", "headers": [(b"X-Sum", b"0")]})


async def trailers_missing(call: Call) -> None:
    await call.start(trailers=True)
    await call.body(b"hello")


async def trailers_unannounced(call: Call) -> None:
    await call.start()
    await call.body(b"hello", more=True)
    await call.noted(lambda: call.send({"type": "http.response.trailers", "headers": []}))
    await call.body(b" again")


async def trailers_forged(call: Call) -> None:
    await call.start(trailers=True)
    await call.body(b"hello")
    await call.send({"type": "http.response.trailers", "headers": [(b"x-a", b"b\r\n\r\nHTTP/1.1 200 OK")]})


FILES = {"here": HERE, "empty": EMPTY, "proc": Path("/proc/self/status"), "missing": Path("/nonexistent")}


async def path(call: Call) -> None:
    EMPTY.touch()
    await call.start()
    await call.send({"type": "http.response.pathsend", "path": str(FILES[call.key])})
    EMPTY.unlink(missing_ok=True)


async def path_sized(call: Call) -> None:
    await call.start((b"Content-Length", b"%d" % HERE.stat().st_size))
    await call.send({"type": "http.response.pathsend", "path": str(HERE)})


async def large_file(call: Call) -> None:
    """8 MB, and whether they have left when `send` comes back."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(8_000_000)
        await call.start()
        await call.send({"type": "http.response.pathsend", "path": file.name})
    call.note("sent")


async def zerocopy(call: Call) -> None:
    """Pieces of a file between others: by offset and count, then from where the file is."""
    with HERE.open("rb") as file:
        await call.start()
        await call.body(b"<", more=True)
        await call.send(
            {"type": "http.response.zerocopysend", "file": file, "offset": 4, "count": 5, "more_body": True}
        )
        await call.body(b">", more=True)
        await call.send({"type": "http.response.zerocopysend", "file": file.fileno(), "count": 3, "more_body": True})
        await call.send({"type": "http.response.zerocopysend", "file": file})


async def zerocopy_only(call: Call) -> None:
    with HERE.open("rb") as file:
        await call.start()
        await call.send({"type": "http.response.zerocopysend", "file": file, "offset": 0, "count": 9})


async def hints(call: Call) -> None:
    links = [b"</style.css>; rel=preload", b"</app.js>; rel=preload"]
    await call.send({"type": "http.response.early_hint", "links": links})
    await call.start()
    await call.send({"type": "http.response.early_hint", "links": links[:1]})
    await call.body(b"hello", more=True)
    await call.send({"type": "http.response.early_hint", "links": links})
    await call.body()


async def hints_forged(call: Call) -> None:
    await call.send({"type": "http.response.early_hint", "links": [b"a\r\n\r\nHTTP/1.1 200 OK"]})


# --- clients that leave, or are slow ----------------------------------------------------------------------------------


async def behind(call: Call) -> None:
    """Goes on when its answer is over, until it is let."""
    await call.answer(b"hello")
    call.note("waits")
    await GATES[call.key].wait()
    call.note("goes on")
    await call.noted(call.receive)
    call.note("over")


async def sends_on(call: Call) -> None:
    """Streams until it cannot any more; then once more, and receives."""
    await call.start()
    try:
        while True:
            await call.body(b"x" * 1000, more=True)
            await asyncio.sleep(0.001)
    except OSError as error:
        call.note([each.__name__ for each in type(error).__mro__[:-2]])
    await call.noted(call.body)
    await call.noted(call.receive)


async def sends_late(call: Call) -> None:
    """The same, when it is let to."""
    call.note("waits")
    await GATES[call.key].wait()
    await sends_on(call)


async def sends_unheard(call: Call) -> None:
    """As many applications do: nobody catches what `send` raises."""
    await call.start()
    while True:
        await call.body(b"x" * 1000, more=True)
        await asyncio.sleep(0.001)


async def wraps_it(call: Call) -> None:
    """As Starlette does."""
    try:
        await sends_unheard(call)
    except OSError:
        raise RuntimeError("the client has left")  # noqa: B904 - it has the other as its context


async def gushes(call: Call) -> None:
    """Sends three large pieces in one step. What comes then, the query says: `waits`, `raises`, or `says` a word, and
    blocks the event loop until the file of that name is there."""
    what, _, name = call.key.partition("=")
    await call.start()
    for number in range(3):
        await call.body(b"%d" % number * 10_000, more=True)
    if what == "raises":
        raise ValueError("after three pieces")
    if what == "says":
        await call.body(b"blocked", more=True)
        while not os.path.exists(name):
            time.sleep(0.005)
    else:
        await GATES[call.key].wait()
    await call.body()


async def pours(call: Call) -> None:
    """Sends pieces of 64 KiB as fast as it may, and notes how many it has sent."""
    SEEN[call.key][:] = [0]
    await call.start()
    for _ in range(400):
        await call.body(bytes(65536), more=True)
        SEEN[call.key][0] += 1
    await call.body()


async def at_once(call: Call) -> None:
    """8 MB in one message."""
    await call.start()
    await call.body(b"x" * 8_000_000)
    call.note("sent")


async def listens(call: Call) -> None:
    """A stream that says nothing, with somebody who waits for the client's end, as Starlette had it."""
    await call.start()
    await call.body(b"begun", more=True)
    await call.read()
    call.note(await call.receive())
    await call.noted(lambda: call.body(b"more"))


# --- tasks ------------------------------------------------------------------------------------------------------------


async def context(call: Call) -> None:
    """Who was the last in this context: nobody, always."""
    before = LAST.get()
    LAST.set(call.key or "somebody")
    await asyncio.sleep(0)
    await call.answer(before.encode())


async def tasks(call: Call) -> None:
    """What libraries expect of a task; said by names of what works."""
    found = []
    task = asyncio.current_task()
    if task is not None and task in asyncio.all_tasks():
        found.append("current_task")
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(30)
    except TimeoutError:
        found.append("timeout")
    try:
        await asyncio.wait_for(asyncio.sleep(30), 0.01)
    except TimeoutError:
        found.append("wait_for")
    async with asyncio.TaskGroup() as group:
        one = group.create_task(asyncio.sleep(0.001, "TaskGroup"))
    found.append(one.result())
    with anyio.move_on_after(0.01) as moved:
        await anyio.sleep(30)
    if moved.cancelled_caught:
        found.append("anyio scope")
    async with anyio.create_task_group() as several:
        several.start_soon(anyio.sleep, 0.001)
    found += [await anyio.to_thread.run_sync(lambda: "anyio thread")]
    found += [await asyncio.to_thread(lambda: "thread")]
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        task.uncancel()
        found.append("cancelled")
    await call.answer(json.dumps(found).encode())


async def at_first(call: Call) -> None:
    """Needs a task before it has ever waited."""
    async with asyncio.timeout(5), asyncio.TaskGroup():
        pass
    with anyio.CancelScope():
        await call.answer(b"at first")


async def cancels_itself(call: Call) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(30)


async def state(call: Call) -> None:
    """Lifespan's state: its values are shared, and what a request adds is its own."""
    of = call.scope["state"]
    before = sorted(of)
    of["shared"].append(1)
    of[f"of {len(of['shared'])}"] = 1
    await call.answer(json.dumps([before, len(of["shared"])]).encode())


async def extensions(call: Call) -> None:
    found = call.scope["extensions"]
    before = sorted(found)
    found["mine"] = {}
    found["http.response.pathsend"]["mine"] = 1
    await call.answer(json.dumps([before, found["http.response.pathsend"]]).encode())


async def signals(call: Call) -> None:
    """Takes signals by the event loop, and gives them back; who has them before, meanwhile and afterwards."""
    taken, loop, found = (signal.SIGTERM, signal.SIGHUP), asyncio.get_running_loop(), []

    def look() -> None:
        fd = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        found.append([fd, *(repr(signal.getsignal(each)) for each in taken)])

    look()
    for each in taken:
        loop.add_signal_handler(each, print)
    look()
    for each in taken:
        loop.remove_signal_handler(each)
    look()
    await call.answer(json.dumps(found).encode())


# ----------------------------------------------------------------------------------------------------------------------


async def seen(call: Call) -> None:
    await call.answer(json.dumps(SEEN[call.key]).encode())


async def let(call: Call) -> None:
    GATES[call.key].set()
    await call.answer(b"let")


PLACES = [
    *(scope, echo, messages, ignore, both, after_body, waits, reads_on, two_ways, slowly),
    *(
        stream,
        sized_pieces,
        nothing,
        start_only,
        piece_only,
        body_only,
        start_twice,
        start_again,
        unknown,
        unknown_caught,
        no_type,
        after_last,
    ),
    *(raises, leaves, raises_started, raises_late, raises_sized, raises_after, long, long_pieces, short, short_pieces),
    *(no_content, not_modified, status, names, wrong, wrong_then_right, lists, bare, connection, closes),
    *(kinds, changes, returns),
    *(trailers, trailers_of_nothing, trailers_missing, trailers_unannounced, trailers_forged),
    *(path, path_sized, large_file, zerocopy, zerocopy_only, hints, hints_forged),
    *(behind, sends_on, sends_late, sends_unheard, wraps_it, gushes, pours, at_once, listens),
    *(context, tasks, at_first, cancels_itself, state, extensions, signals, seen, let),
]
PAGES = {each.__name__: each for each in PLACES}


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["shared"] = []
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def application(scope: Scope, receive: Receive, send: Send) -> Any:
    """The application."""
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    name = scope["path"].strip("/").partition("/")[0]
    if not name:
        return await Call(scope, receive, send).answer(b"hello")
    return await PAGES[name](Call(scope, receive, send))
