"""A WSGI application that does to its server what no application should; each path names one way."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

TEXT = [("Content-Type", "text/plain"), ("Content-Length", "5")]


class BadClose:
    """A result whose `close` cannot even be looked up."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"hello"

    @property
    def close(self) -> Any:
        raise SystemExit("of a property")


def descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]


def is_connection(fd: int) -> bool:
    """Whether a descriptor is a TCP connection."""
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return sock.family == socket.AF_INET and bool(sock.getpeername())
    except OSError:
        return False


def is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The application."""
    way = environ["PATH_INFO"].strip("/")
    start_response("200 OK", TEXT)
    if way == "bad_close":
        return BadClose()
    if way == "connections":  # of all clients
        for fd in filter(is_connection, descriptors()):
            os.close(fd)
    elif way == "everything":
        for fd in descriptors():
            with contextlib.suppress(OSError):
                os.close(fd)
    elif way == "wakeup":  # and the interpreter writes to nobody when a signal comes
        loop = asyncio.new_event_loop()
        loop.add_signal_handler(signal.SIGALRM, int)
        loop.close()
    elif way == "pipes":
        for fd in filter(is_pipe, descriptors()):
            os.close(fd)
    elif way == "outlast":  # time-outs of a second; the query names a file to make when it begins
        Path(environ["QUERY_STRING"]).touch()
        time.sleep(2)
    elif way == "pid":
        return [f"{os.getpid():5}".encode()]
    return [b"hello"]
