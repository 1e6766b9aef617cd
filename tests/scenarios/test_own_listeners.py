"""A stop where sdserve has bound the address itself: who waits to be accepted is answered, who comes later refused."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.load import Load, until_closed
from tests.support.processes import Process
from tests.support.server import Server, connector, free_port
from tests.support.waiting import eventually

Start = Callable[..., Server]
HELD = """import os, time

def application(environ, start_response):
    open("called", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture
def disk(short_path: Path) -> Iterator[Path]:
    """A directory on a disk of its own."""
    path = short_path / "disk"
    path.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a tmpfs here: {error}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


ASK = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_who_waits_to_be_accepted_is_answered(start: Start, short_path: Path, kind: str) -> None:
    """The worker stands still, so that its queue fills; it goes on as it is told to leave."""
    address = ("127.0.0.1", free_port()) if kind == "tcp" else str(short_path / "s")
    bind = f"127.0.0.1:{address[1]}" if kind == "tcp" else f"unix:{address}"
    server = start("-b", bind, "-w", "1", "plain:application").wait_ready()
    [worker] = server.workers
    worker.kill(signal.SIGSTOP)
    server.wait_log(r"was stopped")
    with ExitStack() as stack:
        waiting = [stack.enter_context(connector(address)()) for _ in range(3)]
        for client in waiting:
            client.sendall(ASK)
        server.kill(signal.SIGTERM)
        for client in waiting:
            answer = until_closed(client)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
            assert b"Connection: close\r\n" in answer
    assert server.wait() == 0


def test_who_comes_later_is_refused_at_once(start: Start, tmp_path: Path) -> None:
    """And does not wait, while the last requests are answered, for somebody who will never come."""
    (tmp_path / "held.py").write_text(HELD)
    address = ("127.0.0.1", free_port())
    options = ("-w", "2", "--threads", "2")
    server = start("-b", f"127.0.0.1:{address[1]}", *options, "held:application", cwd=tmp_path).wait_ready()
    with connector(address)() as slow:
        slow.sendall(ASK)
        eventually((tmp_path / "called").exists, "the request is at work")
        server.kill(signal.SIGTERM)

        def refused() -> bool:
            with socket.socket() as late:
                try:
                    late.connect(address)
                except ConnectionRefusedError:
                    return True
            return False

        eventually(refused, "a client is refused")
        assert server.workers, "the request is at work still"
        (tmp_path / "go").touch()
        assert until_closed(slow).startswith(b"HTTP/1.1 200 OK\r\n")
    assert server.wait() == 0


@pytest.mark.parametrize("all_at_once", [False, True])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_who_arrives_amid_the_stop_is_answered_or_refused(
    start: Start, short_path: Path, kind: str, all_at_once: bool
) -> None:
    """None is reset between the last look of a worker and its close of the listener. KillMode=control-group has all
    processes told at once, and the workers may hear it first."""
    address = ("127.0.0.1", free_port()) if kind == "tcp" else str(short_path / "s")
    bind = f"127.0.0.1:{address[1]}" if kind == "tcp" else f"unix:{address}"
    for _ in range(8):
        server = start("-b", bind, "-w", "2", "plain:application").wait_ready()
        load = Load(connector(address), clients=6, think=0.001).start()
        load.wait_answers(50)
        for worker in server.workers if all_at_once else ():
            worker.kill(signal.SIGTERM)
        server.kill(signal.SIGTERM)
        assert server.wait() == 0
        seen = load.stop()
        assert not [each for each in seen.failures if not each.name.startswith("connect: ")]


FAR = """import socket
import sdserve.arbiter.addresses

sdserve.arbiter.addresses.GIVEN_UP = 1.0

def when_ready(server):  # a handshake ends with the first bytes of a request
    for each in server.LISTENERS:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
"""


def holds(process: Process, inode: str) -> bool:
    """Whether a process has this socket."""
    descriptors = Path(f"/proc/{process.pid}/fd").iterdir()
    return any(os.readlink(each) == f"socket:[{inode}]" for each in descriptors if each.is_symlink())


def test_who_is_far_away_is_answered_beside_a_request_that_lasts(start: Start, tmp_path: Path) -> None:
    """Its handshake had begun when the address was shut, and ends when the workers have looked for the last time."""
    (tmp_path / "held.py").write_text(HELD.replace('"called", "w").close()', '"called", "a").write("x")'))
    (tmp_path / "conf.py").write_text(FAR)
    address = ("127.0.0.1", free_port())
    options = ("-c", "conf.py", "-w", "1", "--threads", "2")
    server = start("-b", f"127.0.0.1:{address[1]}", *options, "held:application", cwd=tmp_path).wait_ready()
    [worker] = server.workers
    listening = next(
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()
        if f":{address[1]:04X} 00000000:0000 0A" in line
    )
    assert holds(worker, listening)
    called = tmp_path / "called"
    with connector(address)() as slow, connector(address)() as far:
        slow.sendall(ASK)
        eventually(called.exists, "the request is at work")
        server.kill(signal.SIGTERM)
        eventually(lambda: not holds(worker, listening), "the worker has left the address")
        far.sendall(ASK)
        eventually(lambda: called.read_text() == "xx", "the other one is, too")
        with socket.socket() as late, pytest.raises(ConnectionRefusedError):
            late.connect(address)
        (tmp_path / "go").touch()
        for client in slow, far:
            assert until_closed(client).startswith(b"HTTP/1.1 200 OK\r\n")
    assert server.wait() == 0


def test_a_disk_that_has_become_read_only_costs_no_request(start: Start, disk: Path, tmp_path: Path) -> None:
    """The sockets' files cannot be removed, and everything else is done as ever. The next start says what is wrong."""
    (tmp_path / "held.py").write_text(HELD)
    sockets = ("-b", f"unix:{disk}/s", "--control-socket", f"{disk}/control")
    (tmp_path / "conf.py").write_text("def on_exit(server): print('on_exit was called', flush=True)")
    server = start(*sockets, "-w", "1", "-c", "conf.py", "held:application", cwd=tmp_path).wait_ready()
    with connector(f"{disk}/s")() as slow:
        slow.sendall(ASK)
        eventually((tmp_path / "called").exists, "the request is at work")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        server.kill(signal.SIGTERM)
        server.wait_log("Handling signal: term")
        (tmp_path / "go").touch()
        assert until_closed(slow).startswith(b"HTTP/1.1 200 OK\r\n")
    assert server.wait() == 0
    server.wait_log("on_exit was called")
    assert "Traceback" not in server.log
    again = start(*sockets, "-p", f"{disk}/pid", "held:application", cwd=tmp_path)
    assert again.wait() == 1
    assert f"cannot write the pidfile {disk}/pid: Read-only file system" in again.log
