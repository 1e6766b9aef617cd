"""Reads its request's body in every way, or not at all; wsgi.input as it is, and events in $EARLY_EVENTS."""

import hashlib
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

from tests.apps.streams import TEXT


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    way = environ["PATH_INFO"].strip("/")
    body = environ["wsgi.input"]
    length = int(environ.get("CONTENT_LENGTH") or 0)
    note(f"called {way} {threading.current_thread().name}")
    status, answer = "200 OK", b""
    if way == "refuse":
        status, answer = "401 Unauthorized", b"who are you?"
    elif way == "sum":
        check = hashlib.sha256()
        while piece := body.read(100_000):
            check.update(piece)
        answer = check.hexdigest().encode()
    elif way == "length":
        answer = hashlib.sha256(body.read(length)).hexdigest().encode()
    elif way == "all":
        answer = hashlib.sha256(body.read()).hexdigest().encode()
    elif way == "count":
        answer = str(sum(len(piece) for piece in iter(lambda: body.read(65536), b""))).encode()
    elif way == "lines":
        first, some = body.readline(), body.readline(3)
        answer = repr([first, some, body.readlines(3), list(body), body.read(), body.readline()]).encode()
    elif way == "caught":
        try:
            body.read()
        except OSError as error:
            answer = type(error).__name__.encode()
    elif way == "noted":
        try:
            body.read()
        except Exception as error:
            note(f"noted {type(error).__name__}")
            raise
    elif way == "hang":
        hang()
    elif way == "spin":
        while True:
            time.sleep(0.001)
            with open(os.environ["EARLY_EVENTS"], "a") as file:
                file.write("spins\n")
    elif way == "both":
        start_response(status, [TEXT])
        return (b"%d;" % len(piece) for piece in iter(lambda: body.read(10), b""))
    start_response(status, [TEXT, ("Content-Length", str(len(answer)))])
    return [answer]


def note(event: str) -> None:
    with open(os.environ["EARLY_EVENTS"], "a") as file:
        file.write(event + "\n")


def hang() -> None:
    time.sleep(600)
