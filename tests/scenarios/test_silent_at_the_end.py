"""A client that falls silent in the middle of its request does not keep a service that stops: others wait for it."""

import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.support.load import until_closed
from tests.support.server import Server, connector

APP = """
def application(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
ASGI = """
async def application(scope, receive, send):
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
SILENT = {
    "head": b"GET / HTTP/1.1\r\nHost: a\r\nX-Half",
    "body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nok",
    "chunk": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nok",
}
FOR_EVER = ("--header-timeout", "0", "--body-timeout", "0", "--body-min-rate", "0", "--graceful-timeout", "600")


def test_who_goes_on_is_answered_and_who_does_not_is_not_waited_for(
    start: Callable[..., Server], short_path: Path
) -> None:
    """Both kinds of workers at once, since this takes a while. A server that waited would wait for ten minutes."""
    (short_path / "app.py").write_text(APP)
    (short_path / "asgi.py").write_text(ASGI)
    servers = [
        start("-b", f"unix:{short_path}/{name}.s", "-w", "1", *FOR_EVER, f"{name}:application", cwd=short_path)
        for name in ("app", "asgi")
    ]
    with ExitStack() as stack:
        silent: list[tuple[str, socket.socket]] = []
        going: list[socket.socket] = []
        for server, name in zip(servers, ("app", "asgi"), strict=True):
            server.wait_ready()
            connect = connector(f"{short_path}/{name}.s")
            for kind, data in (*SILENT.items(), ("going", SILENT["body"])):
                client = stack.enter_context(connect())
                client.sendall(data)
                going.append(client) if kind == "going" else silent.append((f"{name} {kind}", client))
        for server in servers:
            server.kill(signal.SIGTERM)
        for client in going:
            client.sendall(b"ay")
            answer = until_closed(client)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"okay"), answer
        for what, client in silent:
            answer = until_closed(client)
            assert answer.startswith(b"HTTP/1.1 408 "), (what, answer)
    assert [server.wait() for server in servers] == [0, 0]
