"""A master that is out of file descriptors does not spin, tells sdservectl how things are, and its workers serve on."""

import http.client
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from sdserve.ctl import ask
from tests.support.load import ask as on
from tests.support.server import Server, answer, connector
from tests.support.waiting import eventually

Start = Callable[..., Server]

# The hook takes all that is left: from then on the master cannot open anything.
GREEDY = """
import os

held = []

def on_reload(server):
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        raise RuntimeError("all descriptors are taken")
"""
FEW = ("sh", "-c", 'ulimit -n 60; exec "$0" -m sdserve "$@"', sys.executable)


def cpu(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def server(start: Start, short_path: Path) -> Server:
    (short_path / "conf.py").write_text("")
    run = short_path / "run"
    run.mkdir()
    paths = ("-b", f"unix:{short_path}/s", "--control-socket", f"{run}/control", "--pid", f"{run}/pid")
    arguments = ("-c", f"{short_path}/conf.py", *paths, "-w", "2", "plain:application")
    return start(*arguments, program=FEW).wait_ready()


def exhaust(server: Server, path: Path) -> None:
    (path / "conf.py").write_text(GREEDY)
    server.kill(signal.SIGHUP)
    server.wait_log("Reload failed, the old workers serve on: .*all descriptors are taken")


def test_sdservectl_is_answered(server: Server, short_path: Path) -> None:
    exhaust(server, short_path)
    for _ in range(3):
        assert ask(f"{short_path}/run/control", "status", 15)["ok"]
    refused = ask(f"{short_path}/run/control", "reload", 15)
    assert not refused["ok"]
    assert "Too many open files" in refused["text"]
    refused = ask(f"{short_path}/run/control", "upgrade", 15)
    assert refused["text"] == "no room for a new master: Too many open files; see LimitNOFILE="
    assert answer(str(short_path / "s")).status == 200


def test_it_waits_where_nobody_can_be_accepted(server: Server, short_path: Path) -> None:
    exhaust(server, short_path)
    clients = []
    for _ in range(30):
        client = socket.socket(socket.AF_UNIX)
        client.connect(f"{short_path}/run/control")
        clients.append(client)
    server.wait_log("control socket: Too many open files; the next attempt is in 1 s")
    before, mark = cpu(server.pid), server.mark
    for _ in range(3):
        mark = server.mark
        server.wait_log("the next attempt is in 1 s", since=mark)
    assert cpu(server.pid) - before < 0.5
    for client in clients:
        client.close()
    assert ask(f"{short_path}/run/control", "status", 30)["ok"]


def test_a_worker_that_dies_is_missed_aloud(server: Server, short_path: Path) -> None:
    exhaust(server, short_path)
    [doomed, left] = server.wait_workers(2)
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait_gone()
    server.wait_log("no room for a worker process: Too many open files")
    before = cpu(server.pid)
    for _ in range(3):
        mark = server.mark
        server.wait_log("no room for a worker process: Too many open files", since=mark)
    assert cpu(server.pid) - before < 0.5
    assert answer(str(short_path / "s")).pid == left.pid


def test_the_control_socket_and_the_pidfile_are_made_anew(server: Server, short_path: Path) -> None:
    """Their directory was removed: who serves does without, until it is there again."""
    run = short_path / "run"
    shutil.rmtree(run)
    mark = server.mark
    server.kill(signal.SIGHUP)
    server.wait_log(f"cannot write the pidfile {run}/pid: No such file or directory", since=mark)
    server.wait_log("no control socket: ", since=mark)
    server.wait_log("Reloaded: ", since=mark)

    run.mkdir()
    mark = server.mark
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ", since=mark)
    assert ask(f"{run}/control", "status", 15)["ok"]
    assert (run / "pid").read_text() == f"{server.pid}\n"

    for name in ("control", "pid"):
        (run / name).unlink()
    server.kill(signal.SIGUSR2)
    new = int(server.notify.wait(lambda message: "MAINPID" in message).fields["MAINPID"])
    assert server.wait() == 0
    server.wait_log("Master has been promoted")
    assert ask(f"{run}/control", "status", 15)["status"]["pid"] == new
    eventually(lambda: (run / "pid").read_text() == f"{new}\n", "the new master's pidfile")


def test_an_upgrade_is_answered_with_the_new_masters_state(server: Server, short_path: Path) -> None:
    told = ask(f"{short_path}/run/control", "upgrade", 30)
    assert told["ok"]
    new = int(server.notify.wait(lambda message: "MAINPID" in message).fields["MAINPID"])
    assert told["text"].startswith(f"upgraded, the new master is pid {new}: Running: 2 of 2 workers serving")


@pytest.mark.parametrize("room", ["soon", "by closing idle ones", "never"])
def test_idle_connections_wait_for_a_worker_with_room_for_them(start: Start, short_path: Path, room: str) -> None:
    """They are in no hurry. But clients of connections that nobody will ever take must hear of it."""
    path = f"{short_path}/s"
    server = start("-b", f"unix:{path}", "-w", "1", "--keep-alive", "60", "plain:application").wait_ready()
    [old] = server.wait_workers(1)
    with ExitStack() as opened:
        free = old.descriptors
        clients = [opened.enter_context(connector(path)()) for _ in range(16)]
        for client in clients:
            assert on(client).status == 200
        server.master.set_soft_limit("nofile", free + 14)  # and so have the workers that it forks
        server.kill(signal.SIGHUP)
        waits = r"cannot take connections over: Too many open files; worker .* has \d+. They wait for 5 s"
        server.wait_log(waits)
        [new] = server.wait_workers(1, besides=[old.pid])
        if room == "soon":
            new.set_soft_limit("nofile", 1024)
            assert {on(client).pid for client in clients} == {new.pid}
        elif room == "never":
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nX-Next-Line: ")  # none is idle
            answered = sum(is_answered(client) for client in reversed(clients))  # the last ones are in the queue
            assert 0 < answered < len(clients)
            assert len(re.findall(waits, server.log)) == 1  # the time is up for all of them at once
        else:
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert all(client.recv(65536).startswith(b"HTTP/1.1 200 ") for client in clients)


def test_who_asks_in_the_queue_is_not_kept_waiting_for_those_who_do_not(start: Start, short_path: Path) -> None:
    """A worker is full long before it has no descriptors."""
    path, config = f"{short_path}/s", short_path / "config.py"
    config.write_text("workers = 2")
    server = start("-c", str(config), "-b", f"unix:{path}", "--keep-alive", "600", "plain:application").wait_ready()
    with ExitStack() as opened:
        clients = [opened.enter_context(connector(path)()) for _ in range(40)]
        assert len({on(client).pid for client in clients}) == 2
        server.master.set_soft_limit("nofile", 124)  # a worker has 24 connections
        config.write_text("workers = 1")
        server.kill(signal.SIGHUP)
        server.wait_log("cannot take connections over: Too many open files; worker .* has .*. They wait for 5 s")
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert all(client.recv(65536).startswith(b"HTTP/1.1 200 ") for client in clients)


def is_answered(client: socket.socket) -> bool:
    """False if the connection was closed."""
    try:
        return on(client).status == 200
    except (ConnectionError, http.client.RemoteDisconnected):
        return False
