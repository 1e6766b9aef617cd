"""The sample application: says hello, and who answered."""

import os
from collections.abc import Iterable
from typing import Any


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """A WSGI application (PEP 3333)."""
    body = f"Hello from {environ['SERVER_SOFTWARE']}, process {os.getpid()}.\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
