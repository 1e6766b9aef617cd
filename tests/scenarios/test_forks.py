"""An application forks: the child is the application's own, and never a second worker that nobody knows of.

A child that comes back to the server ends there, and says nothing to any client. One that lives on holds nothing of the
worker's: no connection, no listener, none of its signals.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.load import ask, until_closed
from tests.support.processes import Process
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually, readable

Address = tuple[str, int]
APP = """
import multiprocessing, os, subprocess, sys, threading, time

LAST = ["no child"]  # how the last child ended

def reap(pid):
    LAST[0] = str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def returns():
    pass

def exits():
    sys.exit()

def exits_with_three():
    sys.exit(3)

def exits_with_a_word():
    sys.exit("a word")

def raises():
    raise RuntimeError("in the child")

def prints():
    sys.stdout.write("half a line of the child's")

def forks(then):
    pid = os.fork()
    if not pid:
        then()
    else:
        reap(pid)

class Result:
    def __init__(self, then):
        self.then = then

    def __iter__(self):
        yield b"he"
        yield b"llo"

    def close(self):
        forks(self.then)

def pieces(then, last):
    yield b"hel"
    forks(then)
    yield b"lo"[:0 if last else 2]

def held(door):
    while os.path.exists(door):
        time.sleep(0.02)

def application(environ, start_response):
    _, where, *how = environ["PATH_INFO"].split("/")
    then = globals().get(how[0]) if how else None
    length = [("Content-Length", "5")]
    if where == "call":
        forks(then)
    elif where == "late":
        environ["wsgi.input"].read()
        forks(then)
    elif where == "before":
        forks(then)
        environ["wsgi.input"].read()
    elif where == "iterate":
        start_response("200 OK", [])
        return pieces(then, False)
    elif where == "last":
        start_response("200 OK", [("Content-Length", "3")])
        return pieces(then, True)
    elif where == "close":
        start_response("200 OK", length)
        return Result(then)
    elif where == "write":
        start_response("200 OK", length)(b"hello")
        forks(then)
        return []
    elif where == "thread":
        thread = threading.Thread(target=forks, args=(then,))
        thread.start()
        thread.join()
    elif where == "detach":
        forks(lambda: os._exit(7))
    elif where == "process":
        process = multiprocessing.get_context("fork").Process(target=then)
        process.start()
        process.join()
        LAST[0] = str(process.exitcode)
    elif where == "program":
        code = subprocess.run([sys.executable, "-c", "raise SystemExit(5)"], preexec_fn=returns).returncode
        LAST[0] = str(code)
    elif where == "hold":  # a process that lives until a file goes
        LAST[0] = multiprocessing.get_context("fork").Process(target=held, args=(environ["QUERY_STRING"],))
        LAST[0].start()
    elif where == "copy":  # as if the connection had been accepted just then, in another thread
        copy = os.dup(environ["gunicorn.socket"].fileno())
        LAST[0] = multiprocessing.get_context("fork").Process(target=held, args=(environ["QUERY_STRING"],))
        LAST[0].start()
        os.close(copy)
    elif where == "terminate":
        LAST[0].terminate()
        LAST[0].join()
        LAST[0] = str(LAST[0].exitcode)
    elif where == "last_child":
        body = LAST[0].encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    elif where == "pid":
        body = str(os.getpid()).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    start_response("200 OK", length)
    return [b"hello"]
"""
THREADS = pytest.mark.parametrize("threads", ["1", "4"])
ENDS = {"returns": "0", "exits": "0", "exits_with_three": "3", "exits_with_a_word": "1", "raises": "1"}


@pytest.fixture
def serve(start: Callable[..., Server], tmp_path: Path) -> Iterator[Callable[..., tuple[Server, Address]]]:
    def serve(*args: str, text: str = APP) -> tuple[Server, Address]:
        (tmp_path / "app.py").write_text(text)
        address = ("127.0.0.1", free_port())
        server = start("-b", "{}:{}".format(*address), "--keep-alive", "60", *args, "app", cwd=tmp_path)
        return server.wait_ready(), address

    yield serve


def children_of(worker: Process) -> list[Process]:
    """Whichever of its threads has forked them."""
    tasks = Path(f"/proc/{worker.pid}/task").iterdir()
    pids = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return [process for process in map(Process.of, pids) if process.alive]


def opened(process: Process) -> set[str]:
    names = set()
    for fd in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed just now
            names.add(os.readlink(fd))
    return names


def is_free(address: Address) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
            sock.listen()
        except OSError:
            return False
        return True


def is_alone(server: Server, address: Address, other: socket.socket) -> None:
    """One worker serves, and no process but that."""
    (worker,) = server.workers
    for sock in (other, *(connector(address)() for _ in range(3))):
        assert ask(sock, "/pid").body == str(worker.pid).encode()
    eventually(lambda: not children_of(worker), "the child is gone")
    assert server.workers == [worker]


@THREADS
@pytest.mark.parametrize("where", ["call", "iterate", "last", "close", "write", "thread"])
def test_a_child_that_comes_back_ends_and_no_client_hears_of_it(
    serve: Callable[..., tuple[Server, Address]], where: str, threads: str
) -> None:
    server, address = serve("--threads", threads, "--timeout", "10")
    other, sock = connector(address)(), connector(address)()
    ask(other, "/pid")
    for how, code in ENDS.items():
        if where == "thread" and code != "0":  # what a thread raises is told by Python itself, and is no exit code
            continue
        assert ask(sock, f"/{where}/{how}").body == (b"hel" if where == "last" else b"hello"), how
        assert ask(sock, "/last_child").body == code.encode(), how
        assert not readable(sock, timeout=0)
    is_alone(server, address, other)
    if where != "thread":
        server.wait_log(rf"GET /{where}/raises")
        server.wait_log("RuntimeError: in the child")
        server.wait_log("a word")


@THREADS
@pytest.mark.parametrize("where", ["late", "before"])
def test_a_child_of_a_call_whose_body_arrives_meanwhile(
    serve: Callable[..., tuple[Server, Address]], where: str, threads: str
) -> None:
    server, address = serve("--threads", threads, "--timeout", "10")
    other = connector(address)()
    ask(other, "/pid")
    with connector(address)() as sock:
        sock.sendall(f"POST /{where}/returns HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n".encode())
        sock.sendall(b"Content-Length: 4\r\nConnection: close\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 100 Continue")
        sock.sendall(b"body")
        got = until_closed(sock)
    assert got.count(b"HTTP/1.1 ") == 1 and got.endswith(b"hello")
    assert ask(other, "/last_child").body == b"0"
    is_alone(server, address, other)


HOOKS = """
import os

def forks(*args):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)

{names} = forks
"""


@THREADS
def test_a_child_of_a_hook_ends_with_the_hook(
    serve: Callable[..., tuple[Server, Address]], tmp_path: Path, threads: str
) -> None:
    names = " = ".join(("post_fork", "post_worker_init", "pre_request", "post_request", "worker_exit"))
    (tmp_path / "hooks.py").write_text(HOOKS.format(names=names))
    server, address = serve("--threads", threads, "--timeout", "10", "-c", str(tmp_path / "hooks.py"))
    other = connector(address)()
    ask(other, "/pid")
    is_alone(server, address, other)
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert server.log.count("Booting worker") == server.log.count("Worker exiting") == 1


def test_a_child_of_the_import_is_no_worker(serve: Callable[..., tuple[Server, Address]]) -> None:
    server, address = serve(text="import os\nif pid := os.fork():\n    os.waitpid(pid, 0)\n" + APP)
    other = connector(address)()
    is_alone(server, address, other)
    assert server.log.count("Booting worker") == 1


def test_what_a_child_has_printed_is_not_lost(serve: Callable[..., tuple[Server, Address]]) -> None:
    server, address = serve()
    assert answer(address, "/call/prints").body == b"hello"
    server.wait_log("half a line of the child's")


@THREADS
def test_children_that_end_by_themselves_do_as_ever(serve: Callable[..., tuple[Server, Address]], threads: str) -> None:
    server, address = serve("--threads", threads)
    other = connector(address)()
    for path, code in {"/detach": b"7", "/process/exits_with_three": b"3", "/program": b"5"}.items():
        assert answer(address, path).body == b"hello"
        assert ask(other, "/last_child").body == code
    is_alone(server, address, other)


@THREADS
def test_a_connection_ends_though_a_child_lives_on(
    serve: Callable[..., tuple[Server, Address]], tmp_path: Path, threads: str
) -> None:
    server, address = serve("--threads", threads, "--graceful-timeout", "3")
    door = tmp_path / "door"
    door.touch()
    idle = connector(address)()
    ask(idle, "/pid")
    with connector(address)() as sock:
        sock.sendall(f"GET /hold?{door} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
        assert until_closed(sock).endswith(b"hello")
    (worker,) = server.workers
    (child,) = children_of(worker)

    def shared() -> list[str]:
        both = opened(child) & opened(worker)
        return [name for name in both if name.startswith("socket:") or "eventpoll" in name]

    eventually(lambda: not shared(), "the child, forked just now, has closed what is the worker's")
    worker.kill(signal.SIGKILL)  # nobody shuts anything down, and nobody else holds a connection
    assert idle.recv(1) == b""
    assert child.alive
    door.unlink()


@THREADS
def test_a_connection_ends_though_a_child_has_a_copy_of_it(
    serve: Callable[..., tuple[Server, Address]], tmp_path: Path, threads: str
) -> None:
    _, address = serve("--threads", threads)
    door = tmp_path / "door"
    door.touch()
    with connector(address)() as sock:
        sock.sendall(f"GET /copy?{door} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
        assert until_closed(sock).endswith(b"hello")
    door.unlink()


@THREADS
def test_a_signal_for_a_child_is_the_childs_own(
    serve: Callable[..., tuple[Server, Address]], tmp_path: Path, threads: str
) -> None:
    server, address = serve("--threads", threads)
    (worker,) = server.workers
    other = connector(address)()
    door = tmp_path / "door"
    door.touch()
    ask(other, f"/hold?{door}")
    assert ask(other, "/terminate").body == b"hello"
    assert ask(other, "/last_child").body == b"-15"
    is_alone(server, address, other)
    assert server.workers == [worker] and "exiting" not in server.log
    door.unlink()


def test_a_child_that_outlives_the_service_does_not_hold_its_address(
    serve: Callable[..., tuple[Server, Address]], tmp_path: Path
) -> None:
    server, address = serve()
    door = tmp_path / "door"
    door.touch()
    assert answer(address, f"/hold?{door}").body == b"hello"
    (worker,) = server.workers
    (child,) = children_of(worker)
    server.kill(signal.SIGKILL)
    server.wait()
    worker.kill(signal.SIGKILL)
    worker.wait_gone()

    eventually(lambda: is_free(address), "nobody listens there")
    assert child.alive
    door.unlink()
