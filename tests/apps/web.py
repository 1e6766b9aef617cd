"""A WSGI application with an answer of every kind that a server must get right; each path names one.

Every call goes through wsgiref's validator, so the server's side of PEP 3333 is checked by each test that uses this.
"""

import ctypes
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

TEXT = ("Content-Type", "text/plain")
MEETINGS: dict[int, threading.Barrier] = {}


def hello(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    return [b"hello"]


def environ(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """All environ items that are strings, one a line."""
    text = "".join(f"{key}={value}\n" for key, value in sorted(environ.items()) if isinstance(value, str))
    start_response("200 OK", [TEXT])
    return [text.encode("latin-1")]


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    size = environ.get("CONTENT_LENGTH")
    body = environ["wsgi.input"].read(int(size) if size else -1)
    start_response("200 OK", [TEXT, ("X-Length", size or "none")])
    return [body]


def plain_echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """A list and its length, without the validator's iterator around it."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [TEXT, ("Content-Length", str(len(body)))])
    return [body]


def ignore(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answers without a look at the body."""
    return hello(environ, start_response)


def stream(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return (b"%d " % number for number in range(5))


def write(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    send = start_response("200 OK", [TEXT])
    send(b"one ")
    send(b"two ")
    return [b"three"]


def nothing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


def unchanged(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("304 Not Modified", [("ETag", '"x"')])
    return []


def file(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """This file, by wsgi.file_wrapper."""
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](open(__file__, "rb"), 4096)  # type: ignore[no-any-return]


def buffer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """wsgi.file_wrapper around what is no file."""
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"no file"), 3)  # type: ignore[no-any-return]


def big(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """As many MiB as the query says, made as they go."""
    start_response("200 OK", [TEXT])
    return (b"x" * 65536 for _ in range(16 * int(environ["QUERY_STRING"])))


def sleep(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    time.sleep(float(environ["QUERY_STRING"]))
    return hello(environ, start_response)


def meet(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answers when as many calls as the query says are in here at the same time."""
    parties = int(environ["QUERY_STRING"])
    MEETINGS.setdefault(parties, threading.Barrier(parties)).wait(timeout=60)
    return hello(environ, start_response)


def events(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Server-sent events. The query: seconds between two, how many, and the seconds until the end after the last."""
    pause, count, rest = [*environ["QUERY_STRING"].split(":"), "0"][:3]
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    for number in range(int(count)):
        time.sleep(float(pause))
        yield b"data: %02d\n\n" % number
    time.sleep(float(rest))


def held(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answers when the file that the query names exists no more."""
    while Path(environ["QUERY_STRING"]).exists():
        time.sleep(0.01)
    return hello(environ, start_response)


def stuck(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Never answers. The query names the way (sleep, recv or clutch), and a file to make when it begins."""
    way, _, path = environ["QUERY_STRING"].partition(":")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Path(path).touch()
        if way == "sleep":
            time.sleep(600)
        elif way == "recv":
            ours.recv(1)
        else:
            mutex, libc = ctypes.create_string_buffer(64), ctypes.PyDLL(None)  # which keeps the interpreter to itself
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)
    return hello(environ, start_response)


def spin(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Computes for as many seconds as the query says, and never lets go of the interpreter by itself.

    Where the query is the path of a file: until that exists no more, which is looked at now and then.
    """
    query = environ["QUERY_STRING"]
    if query.startswith("/"):
        while Path(query).exists():
            for _ in range(100_000):
                pass
        return hello(environ, start_response)
    end = time.monotonic() + float(query)
    while time.monotonic() < end:
        pass
    return hello(environ, start_response)


def pid(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("X-Pid", str(os.getpid()))])
    return [str(os.getpid()).encode()]


def short(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "10")])
    return [b"hello"]


def long(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    return [b"hello, world"]


def early(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    raise RuntimeError("early")


def late(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    def body() -> Iterator[bytes]:
        yield b"one "
        raise RuntimeError("late")

    start_response("200 OK", [TEXT])
    return body()


def leave(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    raise SystemExit(1)


def bad_header(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("X-A", "b\r\nSet-Cookie: forged=1")])
    return [b"hello"]


def bad_status(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK\r\nX-A: b", [TEXT])
    return [b"hello"]


def mute(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    return [b"hello"]


RAW = {"bad_header": bad_header, "bad_status": bad_status, "mute": mute, "short": short, "long": long, "spin": spin} | {
    "plain_echo": plain_echo
}
PAGES: dict[str, Callable[..., Iterable[bytes]]] = {
    **{page.__name__: page for page in (hello, environ, echo, ignore, stream, write, nothing, unchanged, file, buffer)},
    **{page.__name__: page for page in (big, sleep, meet, events, held, stuck, pid, early, late, leave)},
}


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The application."""
    name = environ["PATH_INFO"].strip("/") or "hello"
    if name in RAW:  # wrong on purpose, or too fast to be checked: not for the validator
        return RAW[name](environ, start_response)
    return validator(PAGES[name])(environ, start_response)
