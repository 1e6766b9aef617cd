"""Nobody reads what the server says, or it cannot be written: the server does everything all the same."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, answer
from tests.support.waiting import eventually

Start = Callable[..., Server]

CONFIG = """
def hook(*args):
    print("a line of a hook", "x" * 100, flush=True)

when_ready = pre_fork = post_fork = child_exit = worker_exit = on_reload = on_exit = pre_exec = hook
"""
APP = """
import os, sys

def application(environ, start_response):
    print("a line of the application", "x" * 100, flush=True)
    sys.stderr.write("another\\n")
    environ["wsgi.errors"].write("a third\\n")
    start_response("200 OK", [("X-Pid", str(os.getpid()))])
    return [b"hello"]
"""


class Fifo:
    """A small pipe with a name, and its reader."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, 4096)

    def read(self) -> bytes:
        try:
            return os.read(self.fd, 65536)
        except BlockingIOError:
            return b""


@pytest.fixture
def fifo(short_path: Path) -> Iterator[Fifo]:
    fifo = Fifo(short_path / "fifo")
    yield fifo
    os.close(fifo.fd)


def serve(start: Start, path: Path, redirection: str, *args: str) -> Server:
    (path / "app.py").write_text(APP)
    (path / "conf.py").write_text(CONFIG)
    shell = ("sh", "-c", f'exec "$0" -m sdserve "$@" {redirection}')
    arguments = ("-c", "conf.py", "-b", f"unix:{path}/s", "-w", "2", "--access-logfile", "-", *args, "app")
    return start(*arguments, cwd=path, program=(*shell, sys.executable)).wait_ready()


def does_everything(server: Server, path: Path) -> None:
    """Every verb has its effect, and requests are answered."""
    address = str(path / "s")

    def asks() -> None:
        for _ in range(3):
            assert answer(address).status == 200

    asks()
    workers = [p.pid for p in server.wait_workers(2)]
    server.kill(signal.SIGTTIN)
    server.wait_workers(3)
    server.kill(signal.SIGTTOU)
    server.wait_workers(2)
    server.kill(signal.SIGUSR1)
    server.kill(signal.SIGHUP)
    workers = [p.pid for p in server.wait_workers(2, besides=workers)]
    os.kill(workers[0], signal.SIGKILL)
    workers = [p.pid for p in server.wait_workers(2, besides=workers[:1])]
    asks()
    server.kill(signal.SIGUSR2)
    successor = int(server.notify.wait(lambda message: "MAINPID" in message).fields["MAINPID"])
    assert server.wait() == 0
    server.wait_workers(2, besides=workers, master=successor)
    asks()
    server.kill(signal.SIGTERM, successor)
    eventually(lambda: not server.session, "the end of all processes")
    server.notify.wait(lambda message: "STOPPING" in message)


@pytest.mark.parametrize(
    "redirection",
    [
        pytest.param(">&- 2>&-", id="stdout and stderr closed"),
        pytest.param("<&- >&- 2>&-", id="all closed"),
        pytest.param(">/dev/full 2>&1", id="on a full disk"),
        pytest.param("--error-logfile /dev/full", id="error log on a full disk"),
    ],
)
def test_where_nothing_can_be_written(start: Start, short_path: Path, redirection: str) -> None:
    does_everything(serve(start, short_path, redirection), short_path)


def test_the_reader_of_the_pipe_has_gone(start: Start, short_path: Path, fifo: Fifo) -> None:
    server = serve(start, short_path, f">{short_path}/fifo 2>&1")
    os.dup2(os.open(os.devnull, os.O_RDONLY), fifo.fd)
    does_everything(server, short_path)


def test_the_reader_of_the_pipe_does_not_read(start: Start, short_path: Path, fifo: Fifo) -> None:
    does_everything(serve(start, short_path, f">{short_path}/fifo 2>&1"), short_path)


def test_what_was_lost_is_told_when_somebody_reads_again(start: Start, short_path: Path, fifo: Fifo) -> None:
    server = serve(start, short_path, f">{short_path}/fifo 2>&1", "-w", "1")
    for _ in range(60):
        assert answer(str(short_path / "s")).status == 200
    said = b""

    def told() -> bool:
        nonlocal said
        said += fifo.read()
        assert answer(str(short_path / "s")).status == 200
        return b"were lost: nobody reads" in said

    eventually(told, "how much was lost")
    assert server.master.alive
