"""The application that every server runs in a comparison: one callable, a path for each kind of work.

It does as little as it can, so that what is measured is the server. Answers are constants, and `ANSWERS` says what a
client must get: the measurements check it.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

TINY = b"Hello, world!"
TEN = b"0123456789abcdef" * 640  # 10 kB
POSTED = b"x" * 65536

ASKED = b'{"id": 1, "name": "bench"}'.ljust(200)
FILLING = b"." * 824  # makes 1 kB of an answer to 200 bytes

PIECES = 16
PIECE = b"x" * 65536

ANSWERS = {
    "/pieces": PIECE * PIECES,
    "/any/1": TINY,
    "/json": ASKED + FILLING,
    "/tiny": TINY,
    "/ten": TEN,
    "/echo": POSTED,
    "/sleep50": b"slept",
    "/sleep500": b"slept",
}
POSTS = {"/echo": POSTED, "/json": ASKED}  # what is sent there

Environ = dict[str, Any]


def echo(environ: Environ) -> bytes:
    body: bytes = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    return body


def sleeper(seconds: float) -> Callable[[Environ], bytes]:
    """What waits for a database does: nothing, without the GIL."""

    def work(environ: Environ) -> bytes:
        time.sleep(seconds)
        return b"slept"

    return work


WORK: dict[str, Callable[[Environ], bytes]] = {
    "/any": lambda environ: TINY,
    "/json": lambda environ: echo(environ) + FILLING,
    "/tiny": lambda environ: TINY,
    "/ten": lambda environ: TEN,
    "/echo": echo,
    "/sleep50": sleeper(0.05),
    "/sleep500": sleeper(0.5),
}


def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/pieces":  # a megabyte, made as it goes
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(PIECES * len(PIECE)))])
        return (PIECE for _ in range(PIECES))
    path: str = environ["PATH_INFO"]
    work = WORK.get(path) or WORK[path[: path.index("/", 1)]]
    body = work(environ)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
