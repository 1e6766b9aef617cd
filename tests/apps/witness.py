"""A WSGI application that writes down every request it sees: one JSON line each, in the file that WITNESS names."""

import json
import os
from collections.abc import Iterable
from typing import Any


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The application. What it saw is on record before it answers."""
    size = len(environ["wsgi.input"].read())
    seen = [environ["REQUEST_METHOD"], environ["RAW_URI"], size]
    line = (json.dumps(seen) + "\n").encode()
    fd = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line)
    finally:
        os.close(fd)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(line)))])
    return [line]
