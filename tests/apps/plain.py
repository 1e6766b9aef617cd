"""A plain WSGI application that tells who answered; DELAY (seconds) makes each request last.

/            "hello"
/environ/X   the value of the environment variable X in the worker
/wsgi/X      environ["X"]
/sleep/N     answers after N seconds
/echo        the request's body
/big/N       N bytes
/boom        raises
"""

import os
import time
from collections.abc import Iterable
from typing import Any

DELAY = float(os.environ.get("DELAY", "0"))


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The application."""
    if DELAY:
        time.sleep(DELAY)
    _, what, *rest = environ["PATH_INFO"].split("/")
    body = b"hello"
    if what == "environ":
        body = os.environ.get(rest[0], "").encode()
    elif what == "wsgi":
        body = str(environ.get(rest[0], "")).encode()
    elif what == "sleep":
        time.sleep(float(rest[0]))
    elif what == "echo":
        body = environ["wsgi.input"].read()
    elif what == "big":
        body = bytes(int(rest[0]))
    elif what == "boom":
        raise RuntimeError("boom")
    length = str(len(body))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", length), ("X-Pid", str(os.getpid()))])
    return [body]
