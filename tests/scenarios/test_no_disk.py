"""Once it serves, a master needs nothing from the disk any more: whatever it is told, it imports nothing."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdserve.ctl import ask
from tests.support.server import Server, answer, connector

Start = Callable[..., Server]

# From the moment that the file `gone` exists, nothing of sdserve, of what it requires or of the standard library can be
# imported in this process or a child; who tries is noted in the file `tried`.
PROGRAM = """
import os, sys

class Gone:
    names = {*sys.stdlib_module_names, "sdserve", "systemd", "httptools", "setproctitle", "uvloop",
             "websockets"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names and os.path.exists("gone"):
            fd = os.open("tried", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(fd, f"{os.getpid()} {name}\\n".encode())
            os.close(fd)
            raise ModuleNotFoundError(f"No module named {name!r}: the disk is gone", name=name)

sys.meta_path.insert(0, Gone())
from sdserve.cli import main
main()
"""
APP = """
import os, time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        time.sleep(1000)
    environ["wsgi.input"].read()
    start_response("200 OK", [("X-Pid", str(os.getpid()))])
    return [b"hello"]
"""
BAD = {
    "conf.py": "wokers = 3\ntimeuot = 'x'\n",
    "app.py": "def application(:\n",
}


@pytest.fixture
def server(start: Start, short_path: Path) -> Server:
    (short_path / "app.py").write_text(APP)
    (short_path / "conf.py").write_text("")
    bind = ("-b", f"unix:{short_path}/s", "--control-socket", f"{short_path}/control", "-p", f"{short_path}/pid")
    logs = ("--access-logfile", "-", "--log-level", "trace")
    arguments = ("-w", "2", "--timeout", "1", "--graceful-timeout", "5", *bind, *logs, "-c", "conf.py", "app")
    program = (sys.executable, "-c", PROGRAM)
    env = {"SDSERVE_CMD_ARGS": "--keep-alive 5"}
    return start(*arguments, cwd=short_path, program=program, env=env).wait_ready()


def test_every_verb_without_a_disk(server: Server, short_path: Path) -> None:
    address = str(short_path / "s")
    workers = [p.pid for p in server.wait_workers(2)]
    (short_path / "gone").touch()

    def changes(command: signal.Signals, count: int, new: bool = False) -> None:
        nonlocal workers
        server.kill(command)
        workers = [p.pid for p in server.wait_workers(count, besides=workers if new else ())]
        assert answer(address).status == 200

    changes(signal.SIGTTIN, 3)
    changes(signal.SIGTTOU, 2)
    changes(signal.SIGUSR1, 2)
    changes(signal.SIGHUP, 2, new=True)
    server.kill(signal.SIGWINCH)
    server.wait_workers(0)
    changes(signal.SIGHUP, 2)
    doomed = workers[0]
    os.kill(doomed, signal.SIGSEGV)
    workers = [p.pid for p in server.wait_workers(2, besides=[doomed])]

    with connector(address)() as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_log("has run for")
        client.recv(100)
    server.wait_workers(2)

    assert ask(f"{short_path}/control", "status", 15)["ok"]
    mark = server.mark
    server.kill(signal.SIGUSR2)
    server.wait_log("Upgrade backed out, this master serves on: ", since=mark)
    assert not (short_path / "pid.2").exists()

    for name, text in BAD.items():
        good = (short_path / name).read_text()
        (short_path / name).write_text(text)
        mark = server.mark
        server.kill(signal.SIGHUP)
        server.wait_log("Reload failed, the old workers serve on: .*", since=mark)
        (short_path / name).write_text(good)
        assert answer(address).status == 200

    with connector(address)() as client:
        client.sendall(b"PUT / HTTP/1.0\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        assert b"200 OK" in client.recv(100)
    workers = [p.pid for p in server.wait_workers(2)]
    changes(signal.SIGHUP, 2, new=True)
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    tried = (short_path / "tried").read_text().splitlines() if (short_path / "tried").exists() else []
    own = [each for each in tried if int(each.split()[0]) == server.pid]
    assert not own, "\n".join(own)
    children = [each for each in tried if " sdserve." in each and int(each.split()[0]) not in successors(server)]
    assert not children, "\n".join(children)


ASGI = """
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
"""


def test_a_service_of_asgi_without_a_disk(start: Start, short_path: Path) -> None:
    """The application alone decides what serves it, and so what is in memory."""
    (short_path / "app.py").write_text(ASGI)
    address = f"{short_path}/s"
    program = (sys.executable, "-c", PROGRAM)
    server = start("-w", "2", "-b", f"unix:{address}", "app", cwd=short_path, program=program).wait_ready()
    workers = first = [p.pid for p in server.wait_workers(2)]
    assert answer(address).body == b"hello"
    (short_path / "gone").touch()
    for _ in range(2):
        server.kill(signal.SIGHUP)
        workers = [p.pid for p in server.wait_workers(2, besides=workers)]
        assert answer(address).body == b"hello"
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    tried = (short_path / "tried").read_text().splitlines() if (short_path / "tried").exists() else []
    late = [each for each in tried if int(each.split()[0]) not in first]  # those may be about to import what is left
    assert not late, "\n".join(late)


def successors(server: Server) -> set[int]:
    """New masters, which have to import what there is."""
    return {int(line.rpartition(" ")[2]) for line in server.log.splitlines() if "the new master is pid" in line}
