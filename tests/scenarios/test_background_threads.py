"""A thread that a request started, to send a mail perhaps, is waited for, whichever thread called the application."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server, connector, free_port
from tests.support.waiting import eventually

APP = """
import os, threading, time

def work():
    while not os.path.exists("go on"):
        time.sleep(0.01)
    with open("sent", "w") as file:
        file.write("the mail")

def application(environ, start_response):
    environ["wsgi.input"].read()
    thread = threading.Thread(target=work)
    thread.start()
    body = f"{thread.daemon} {threading.current_thread().daemon}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
BODIES = {
    "none": (HEAD + b"\r\n", b""),
    "asked for": (HEAD + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n", b"body"),
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_is_waited_for(
    start: Callable[..., Server], tmp_path: Path, threads: str, body: str, number: signal.Signals
) -> None:
    (tmp_path / "app.py").write_text(APP)
    address = ("127.0.0.1", free_port())
    server = start("-b", "{}:{}".format(*address), "-w", "1", "--threads", threads, "app", cwd=tmp_path).wait_ready()
    [worker] = server.workers
    with connector(address)() as sock:
        head, rest = BODIES[body]
        sock.sendall(head)
        if rest:
            assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(rest)
        answer = b""
        while data := sock.recv(1000):
            answer += data
    assert answer.endswith(b"False False"), answer
    server.kill(number)
    server.wait_log(f"Worker exiting \\(pid: {worker.pid}\\)")
    (tmp_path / "go on").touch()
    worker.wait_gone(20)
    eventually((tmp_path / "sent").exists, "what the thread wrote")
    assert (tmp_path / "sent").read_text() == "the mail"
    assert "leaves behind" not in server.log
