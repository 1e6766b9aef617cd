"""A WSGI application with one path for each way in which a worker handles bodies: in memory, on disk, from a file."""

import os
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any, ClassVar

BIG = 768 << 10  # bytes: more than sockets and memory keep for a reader that is slow
PIECE = b"0123456789abcdef" * 1024


def file_of(data: bytes) -> str:
    """A file that is left behind by nobody."""
    fd = os.memfd_create("kinds")
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(data)
    return f"/proc/self/fd/{fd}"


FILE = file_of(PIECE * (BIG // len(PIECE)))


class Made:
    """BIG bytes, made as they are sent. `open` are those that nobody has closed."""

    open: ClassVar[set["Made"]] = set()

    def __init__(self) -> None:
        self.open.add(self)

    def __iter__(self) -> Iterator[bytes]:
        return repeat(PIECE, BIG // len(PIECE))

    def close(self) -> None:
        self.open.remove(self)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """hello, echo (the body), whole, made (both BIG), pushed (by write()), file; and how many of `made` are open."""
    path = environ["PATH_INFO"]
    headers = [("Content-Type", "text/plain")]
    if path == "/echo":
        body = environ["wsgi.input"].read()
        start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
        return [body]
    if path == "/whole":
        start_response("200 OK", [*headers, ("Content-Length", str(BIG))])
        return [PIECE * (BIG // len(PIECE))]
    if path == "/made":
        start_response("200 OK", [*headers, ("Content-Length", str(BIG))])
        return Made()
    if path == "/pushed":
        write = start_response("200 OK", [*headers, ("Content-Length", str(BIG))])
        for _ in range(BIG // len(PIECE)):
            write(PIECE)
        return []
    if path == "/file":
        start_response("200 OK", [*headers, ("Content-Length", str(BIG))])
        return environ["wsgi.file_wrapper"](open(FILE, "rb"))  # type: ignore[no-any-return]
    body = b"hello" if path == "/" else str(len(Made.open)).encode()
    start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body]
