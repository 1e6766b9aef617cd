"""A Flask application with WebSockets (Flask-Sock), and one that speaks a protocol of its own on its connection."""

import os
import socket
from collections.abc import Iterable
from typing import Any

from flask import Flask
from flask_sock import Sock  # type: ignore[import-untyped]

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 25}
sock = Sock(app)


@app.get("/")
def plain() -> str:
    return f"{os.getpid()}"


@sock.route("/echo")  # type: ignore[untyped-decorator]
def echo(ws: Any) -> None:
    while True:
        data = ws.receive()
        if data == "pid":
            data = str(os.getpid())
        if data == "bye":
            return
        ws.send(data)


def raw(environ: dict[str, Any]) -> Iterable[bytes]:
    """Upper-cases what comes, until `end`: by makefile, with what came in one piece with the request."""
    client: socket.socket = environ["gunicorn.socket"]
    client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: shout\r\nConnection: Upgrade\r\n\r\n")
    with client.makefile("rb") as lines:
        for line in lines:
            if line == b"end\n":
                break
            client.sendall(line.upper())
    return []


def look(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Looks at the socket, and answers as ever."""
    client: socket.socket = environ["gunicorn.socket"]
    try:
        peeked = client.recv(5, socket.MSG_PEEK)
    except BlockingIOError:
        peeked = b"nothing"
    body = f"{client.getpeername()[1] == int(environ['REMOTE_PORT'])} {client.fileno() > 2} {peeked!r}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def hints(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    early = environ["wsgi.early_hints"]
    early([("Link", "</a.css>; rel=preload")])
    early([(b"Link", b"</b.js>; rel=preload"), ("Content-Length", "5")])
    if environ["QUERY_STRING"]:
        early([("Link", "</c>\r\nforged: 1")])
    write = start_response("200 OK", [("Content-Length", "2")])
    write(b"o")
    early([("Link", "</late>")])
    return [b"k"]


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/raw":
        return raw(environ)
    if path == "/look":
        return look(environ, start_response)
    if path == "/hints":
        return hints(environ, start_response)
    if path == "/stop":
        environ["gunicorn.socket"].sendall(b"HTTP/1.0 299 Mine\r\n\r\nbody")
        raise StopIteration
    return app(environ, start_response)  # type: ignore[no-any-return]
