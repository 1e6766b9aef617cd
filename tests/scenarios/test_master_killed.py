"""The master is killed and nobody cleans up behind it: its workers finish what they can, and none stays for ever."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server, answer, connector

Start = Callable[..., Server]

APP = """
import os, socket, threading, time

def application(environ, start_response):
    what = environ["PATH_INFO"]
    print("called", what, flush=True)
    if what == "/sleep":
        time.sleep(1000)
    elif what == "/spin":
        while True:
            pass
    elif what == "/lock":
        threading.Event().wait()
    elif what == "/read":
        socket.socketpair()[0].recv(1)
    elif what == "/second":
        time.sleep(1)
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""


def serve(start: Start, path: Path, *args: str) -> Server:
    (path / "app.py").write_text(APP)
    arguments = ("-b", f"unix:{path}/s", "-w", "1", "--timeout", "0", "--orphan-timeout", "2", *args, "app")
    return start(*arguments, cwd=path).wait_ready()


def ask(path: Path, what: str) -> socket.socket:
    client = connector(str(path / "s"))()
    client.sendall(f"GET {what} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("what", ["/sleep", "/spin", "/lock", "/read"])
def test_a_worker_that_is_stuck_ends_and_leaves_the_listeners(
    start: Start, short_path: Path, what: str, threads: str
) -> None:
    server = serve(start, short_path, "--threads", threads)
    [worker] = server.wait_workers(1)
    with ask(short_path, what):
        server.wait_log(f"called {what}")
        server.kill(signal.SIGKILL)
        worker.wait_gone(30)
    with pytest.raises(ConnectionRefusedError):
        answer(str(short_path / "s"))


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_request_that_ends_in_time_is_answered(start: Start, short_path: Path, threads: str) -> None:
    server = serve(start, short_path, "--threads", threads, "--orphan-timeout", "20")
    [worker] = server.wait_workers(1)
    with ask(short_path, "/second") as client:
        server.wait_log("called /second")
        server.kill(signal.SIGKILL)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        worker.wait_gone(15)


def test_one_that_waits_ends_at_once(start: Start, short_path: Path) -> None:
    server = serve(start, short_path, "--orphan-timeout", "1000")
    [worker] = server.wait_workers(1)
    server.kill(signal.SIGKILL)
    worker.wait_gone(15)
