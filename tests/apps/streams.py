"""Responses that are made as they go, and that tell what becomes of them: each path names one.

Events are lines of the file that the environment variable STREAM_EVENTS names.
"""

import contextvars
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

TEXT = ("Content-Type", "text/plain")
PIECE = 65536
USER: contextvars.ContextVar[str] = contextvars.ContextVar("user")


def note(event: str) -> None:
    with open(os.environ["STREAM_EVENTS"], "a") as file:
        file.write(event + "\n")


class Numbers:
    """`count` pieces; each begins with its number, the rest is the name of whom it is for."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.made = 0
        self.count = count
        self.thread = threading.get_ident()
        self.base = sqlite3.connect(":memory:")  # of this thread

    def __iter__(self) -> "Numbers":
        self.token = USER.set(self.name)
        return self

    def __next__(self) -> bytes:
        assert self.thread == threading.get_ident()
        assert USER.get() == self.name
        if self.made == self.count:
            raise StopIteration
        self.made += 1
        self.base.execute("select 1")
        return (b"%08d" % self.made + self.name.encode()).ljust(PIECE, b".")

    def close(self) -> None:
        self.base.close()
        assert USER.get() == self.name
        USER.reset(self.token)
        note(f"closed {self.name} {self.made}")


def numbers(query: str, start_response: Any) -> Iterable[bytes]:
    name, count = query.split(",")
    assert USER.get("nobody") == "nobody"
    start_response("200 OK", [TEXT])
    return Numbers(name, int(count))


def endless(query: str, start_response: Any) -> Iterable[bytes]:
    """Pieces of as many bytes for ever, each after as many milliseconds of work."""
    start_response("200 OK", [TEXT])
    size, work = map(int, query.split(","))
    piece = bytes(size)

    def made() -> Iterator[bytes]:
        try:
            while True:
                until = time.monotonic() + work / 1000
                while time.monotonic() < until:
                    pass
                yield piece
        finally:
            note("closed endless")

    return made()


def fails(query: str, start_response: Any) -> Iterable[bytes]:
    """Breaks off after as many pieces."""
    start_response("200 OK", [TEXT, ("Content-Length", str(1 << 30))])

    def pieces() -> Iterator[bytes]:
        for _ in range(int(query)):
            yield bytes(PIECE)
        raise RuntimeError("in the middle")

    return pieces()


def pushed(query: str, start_response: Any) -> Iterable[bytes]:
    """As many pieces by write(), and then as many by iteration."""
    write = start_response("200 OK", [TEXT])
    for number in range(int(query)):
        write((b"%08d" % number).ljust(PIECE, b"."))
    return ((b"%08d" % number).ljust(PIECE, b".") for number in range(int(query), 2 * int(query)))


def hello(query: str, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    return [b"hello"]


CONSTANT = b"c" * 10_000_000


def constant(query: str, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", str(len(CONSTANT)))])
    return [CONSTANT]


def pieces(query: str, start_response: Any) -> Iterable[bytes]:
    """A list of small and large pieces."""
    start_response("200 OK", [TEXT])
    return [(b"%d," % number) * (1 if number % 7 else 5000) for number in range(int(query))]


def file(query: str, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return WRAPPER(open(query, "rb"))  # type: ignore[no-any-return]


def unflushed(query: str, start_response: Any) -> Iterable[bytes]:
    """A temporary file that was just written to, to be sent from its second byte on."""
    start_response("200 OK", [TEXT])
    made = tempfile.TemporaryFile("w+b")  # noqa: SIM115
    made.write(b"-" + b"u" * int(query))
    made.seek(1)
    made.write(b"v")
    made.seek(1)
    return WRAPPER(made)  # type: ignore[no-any-return]


def zipped(query: str, start_response: Any) -> Iterable[bytes]:
    import gzip

    start_response("200 OK", [TEXT])
    return WRAPPER(gzip.open(query, "rb"))  # type: ignore[no-any-return]


def text(query: str, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return WRAPPER(open(query))  # type: ignore[no-any-return]


WRAPPER: Any = None
PAGES = {page.__name__: page for page in (numbers, endless, fails, pushed, hello, constant, pieces)}
PAGES |= {page.__name__: page for page in (file, unflushed, zipped, text)}


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    global WRAPPER
    WRAPPER = environ["wsgi.file_wrapper"]
    return PAGES[environ["PATH_INFO"].strip("/")](environ["QUERY_STRING"], start_response)
