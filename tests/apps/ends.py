"""Ends its exchanges in every way, with the garbage collector off; `/left` says what there is in memory."""

import gc
import json
import os
import socket
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

gc.disable()
TEXT = ("Content-Type", "text/plain")
LARGE = 40_000_000  # bytes: more than a worker keeps in memory
OURS = ("sdserve.gateway", "sdserve.workers", "sdserve.http", "_io", "socket", "_socket", __name__)
# Bounded memories, and a call that lasts: that of `left` itself.
NOT_OF_REQUESTS = ("Head", "RateLimit", "Run")


class Held:
    """Something that a request holds: it is there for as long as anything of that request is."""


class Pieces:
    """An iterable that knows all of its request, as frameworks' responses do."""

    def __init__(self, environ: dict[str, Any], start_response: Any, count: int) -> None:
        self.environ, self.write, self.held = environ, start_response("200 OK", [TEXT]), Held()
        self._left = count

    def __iter__(self) -> "Pieces":
        return self

    def __next__(self) -> bytes:
        if not self._left:
            raise StopIteration
        self._left -= 1
        return bytes(100_000)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    way = environ["PATH_INFO"].strip("/")
    if way == "left":
        text = json.dumps(left()).encode()
        start_response("200 OK", [TEXT])
        return [text]
    environ["held"] = held = Held()
    return WAYS[way](environ, start_response) or [repr(held).encode()]


def left() -> dict[str, int]:
    """How many objects there are of the server's, the application's, and of what exceptions leave behind."""
    kinds = Counter(type(each) for each in gc.get_objects())
    ours = {kind: count for kind, count in kinds.items() if kind.__module__.startswith(OURS)}
    ours |= {kind: count for kind, count in kinds.items() if issubclass(kind, BaseException | types.TracebackType)}
    return {kind.__qualname__: count for kind, count in ours.items() if kind.__name__ not in NOT_OF_REQUESTS}


def generator(environ: dict[str, Any], start_response: Any, count: int = 300) -> Iterator[bytes]:
    held = Held()
    start_response("200 OK", [TEXT])
    for _ in range(count):
        yield bytes(100_000)
    del held, environ


def fails(environ: dict[str, Any], start_response: Any) -> None:
    raise RuntimeError("before the head")


def fails_late(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    yield from generator(environ, start_response, 3)
    raise RuntimeError("behind the head")


def fails_again(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    import sys

    try:
        raise RuntimeError("told")
    except RuntimeError:
        start_response("500 Failed", [TEXT], sys.exc_info())
    return [b"failed"]


def fails_at_close(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    class Result(Pieces):
        def close(self) -> None:
            raise RuntimeError("at the end")

    return Result(environ, start_response, 3)


def yields_nothing(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [TEXT])
    while True:
        yield b""


def body(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return [bytes(LARGE)]


def writes(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    write = start_response("200 OK", [TEXT])
    for _ in range(100):
        write(bytes(1_000_000))
    return []


def file(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    made = os.fdopen(os.memfd_create("ends"), "w+b")
    made.truncate(LARGE)
    made.write(bytes(4096))
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](made)  # type: ignore[no-any-return]


def reads(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    read = [bytes(piece) for piece in iter(lambda: environ["wsgi.input"].read(65536), b"")]
    start_response("200 OK", [TEXT])
    return [b"%d" % len(read)]


def reads_twice(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    try:
        reads(environ, start_response)
    except OSError:
        return reads(environ, start_response)
    return [b"read"]


def reads_as_it_goes(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [TEXT])
    held = Held()
    while piece := environ["wsgi.input"].read(65536):
        yield piece
    del held


def refuses(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("401 Unauthorized", [TEXT])
    return [b"who are you?"]


def takes(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    sock: socket.socket = environ["gunicorn.socket"]
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    return []


def takes_and_fails(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    takes(environ, start_response)
    raise RuntimeError("in a connection of its own")


def hints(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    return refuses(environ, start_response)


WAYS: dict[str, Callable[[dict[str, Any], Any], Iterable[bytes] | None]] = {
    "generator": generator,
    "pieces": lambda environ, start_response: Pieces(environ, start_response, 300),
    "short": lambda environ, start_response: Pieces(environ, start_response, 3),
    **{
        each.__name__: each
        for each in (fails, fails_late, fails_again, fails_at_close, yields_nothing, body, writes, file)
    },
    **{each.__name__: each for each in (reads, reads_twice, reads_as_it_goes, refuses, takes, takes_and_fails, hints)},
}
