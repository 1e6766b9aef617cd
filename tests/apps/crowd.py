"""One client that sends a request at a time, in a crowd that pipelines: for how many of theirs does it wait?

The application is that client: it sends while it answers one of the crowd, so it knows when its request has arrived.
"""

import json
import socket
from collections.abc import Iterable
from typing import Any

EVERY = 101  # requests of the crowd between two of the one: not in step with anything
answered = 0  # of the crowd
asked_at = -1  # how many were answered when the one asked, -1: it does not wait
waits: list[int] = []
one: list[socket.socket] = []


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    global answered, asked_at
    path = environ["PATH_INFO"]
    body = b""
    if path == "/crowd":
        answered += 1
        if not one:
            one.append(socket.create_connection((environ["SERVER_NAME"], int(environ["SERVER_PORT"]))))
        elif answered % EVERY == 0 and asked_at < 0:
            asked_at = answered
            one[0].sendall(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
    elif path == "/one":
        waits.append(answered - asked_at)
        asked_at = -1
    else:
        body = json.dumps(waits).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
