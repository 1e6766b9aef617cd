"""A worker that hangs without any request is noticed and replaced, too: what runs there beside requests is at fault."""

from collections.abc import Callable
from pathlib import Path

from tests.support.load import ask
from tests.support.server import Server, answer, connector, free_port

WSGI = """
import ctypes, os, threading, time

def begin():
    while not os.path.exists("go"):
        time.sleep(0.01)
    mutex, libc = ctypes.create_string_buffer(64), ctypes.PyDLL(None)  # which keeps the interpreter to itself
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)

def application(environ, start_response):
    if environ["PATH_INFO"] == "/begin":
        threading.Thread(target=begin, daemon=True).start()
    start_response("200 OK", [("X-Pid", str(os.getpid()))])
    return [b"hello"]
"""
ASGI = """
import asyncio, os, time

async def begin():
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    time.sleep(600)

async def application(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/begin":
        application.task = asyncio.create_task(begin())
    headers = [(b"x-pid", b"%d" % os.getpid())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})
"""


def test_a_thread_that_keeps_the_interpreter_and_a_task_that_blocks_the_loop(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    served = []
    for name, source, threads in (("wsgi", WSGI, "1"), ("threads", WSGI, "4"), ("asgi", ASGI, "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text(source)
        address = ("127.0.0.1", free_port())
        args = ("-b", "{}:{}".format(*address), "-t", "1", "--keep-alive", "60", "--threads", threads, "app")
        served.append((start(*args, cwd=tmp_path / name), address, tmp_path / name / "go"))
    found = []
    for server, address, _ in served:
        server.wait_ready()
        kept = connector(address)()
        old = ask(kept, "/begin").pid
        found.append((old, kept))
        assert server.workers[0].pid == old
    for _, _, go in served:
        go.touch()
    for (server, address, _), (old, _) in zip(served, found, strict=True):
        server.wait_log(rf"WORKER TIMEOUT \(pid:{old}\)")
        [new] = server.wait_workers(1, besides=[old])
        got = answer(address)
        assert got.pid == new.pid
        assert got.body == b"hello"
        server.wait_log(r'app\.py".* in begin')
    kept = found[-1][1]  # the loop was interrupted: its connections went to the new worker
    assert ask(kept).pid == served[-1][0].workers[0].pid
