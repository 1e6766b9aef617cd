"""`systemctl stop` under clients: whatever had arrived is answered, and no client ever sees a reset.

STOPS says how many times the service is stopped under busy clients (default 3); the next request starts it again.
"""

import array
import fcntl
import os
import socket
import termios
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.load import Load, ask, until_closed
from tests.support.machine import Machine
from tests.support.service import PLAIN, deploy
from tests.support.waiting import eventually

STOPS = int(os.environ.get("STOPS", "3"))
CLIENTS = 32
OFTEN = "[Unit]\nStartLimitIntervalSec=0\n"
HELD = """import os, time

def application(environ, start_response):
    while os.path.exists("/srv/app/hold"):
        time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
KEEPS = {
    "as shipped": "",
    "none": "[Service]\nFileDescriptorStoreMax=0\n",
    "one": "[Service]\nFileDescriptorStoreMax=1\n",
}


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("threads", [1, pytest.param(8, marks=pytest.mark.once)])
@pytest.mark.parametrize("deed", ["stop", "restart"])
@pytest.mark.parametrize("keeps", KEEPS)
def test_no_request_of_busy_clients_is_lost(machine: Machine, keeps: str, deed: str, threads: int) -> None:
    """Kept connections, each with its next request under way while the workers leave."""
    settings = {"KEEPALIVE": "60", "THREADS": str(threads)}
    service = deploy(machine, settings=settings, drop_in=OFTEN + KEEPS[keeps])
    service.wake()
    with Load(service.connect, clients=CLIENTS, reuse=CLIENTS) as load:
        for _ in range(STOPS):
            load.wait_answers(20 * CLIENTS)
            machine.systemctl(deed, service.unit)
        load.wait_answers(CLIENTS)
    print(f"{STOPS} times {deed}, store keeps {keeps}, {threads} threads: {load.record}")
    assert not load.record.lost, load.record
    assert set(load.record.statuses) == {200}


def test_whoever_has_begun_to_ask_is_answered(machine: Machine, opened: ExitStack) -> None:
    """Half a head, half an upload, and a request in progress; the rest comes while the service stops."""
    service = deploy(machine, settings={"KEEPALIVE": "60", "THREADS": "4"})
    service.wake()
    clients = [opened.enter_context(service.connect()) for _ in range(9)]
    for client in clients:
        assert ask(client).status == 200
    parts = [
        (b"GET / HTTP/1.1\r\nHo", b"st: test\r\n\r\n"),
        (b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhe", b"llo"),
        (b"GET /sleep/1 HTTP/1.1\r\nHost: test\r\n\r\n", b""),
    ]
    begun = list(zip(clients, parts * 3, strict=True))
    for client, (first, _) in begun:
        client.sendall(first)
    service.wait_busy(1)
    eventually(lambda: all(unread(client) == 0 for client in clients), "what was sent has arrived")
    machine.systemctl("stop", "--no-block", service.unit)
    machine.wait_for(service.unit, ActiveState="deactivating")
    for client, (_, second) in begun:
        client.sendall(second)
    for client in clients:
        answer = until_closed(client)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
        assert b"Connection: close" in answer
    machine.wait_for(service.unit, ActiveState="inactive", Result="success")


@pytest.mark.parametrize("deed", ["stop", "restart", "kill"])
def test_nor_where_every_process_hears_the_signal_by_itself(machine: Machine, deed: str) -> None:
    """KillMode=control-group, which is systemd's default, and `systemctl kill`: a worker may hear of it first."""
    whole = "[Service]\nKillMode=control-group\n"
    service = deploy(machine, settings={"KEEPALIVE": "60", "THREADS": "4"}, drop_in=OFTEN + whole)
    service.wake()
    with Load(service.connect, clients=CLIENTS, reuse=CLIENTS // 2) as load:
        for _ in range(STOPS):
            load.wait_answers(20 * CLIENTS)
            if deed == "kill":
                main = service.main
                machine.systemctl("kill", "-s", "TERM", service.unit)
                eventually(lambda: service.main != main, "the master has ended")  # noqa: B023 - called at once
            else:
                machine.systemctl(deed, service.unit)
        load.wait_answers(CLIENTS)
    print(f"{STOPS} times {deed}: {load.record}")
    assert not load.record.lost, load.record


def unread(client: socket.socket) -> int:
    """Bytes that were sent and that the peer's kernel has not acknowledged (SIOCOUTQ, tcp(7))."""
    count = array.array("i", [0])
    fcntl.ioctl(client, termios.TIOCOUTQ, count)
    return count[0]


def test_idle_connections_end_without_a_reset(machine: Machine, opened: ExitStack) -> None:
    service = deploy(machine, settings={"KEEPALIVE": "60", "THREADS": "4"})
    service.wake()
    clients = [opened.enter_context(service.connect()) for _ in range(100)]
    for client in clients:
        assert ask(client).status == 200
    machine.systemctl("stop", service.unit)
    assert [client.recv(1) for client in clients] == [b""] * len(clients)


def test_programs_that_requests_run_are_not_disturbed(machine: Machine) -> None:
    """git-http-backend, a converter of images: the request waits for it, so it has to come to its end."""
    app = (
        "import subprocess\n"
        "def application(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/wait':\n"
        "        subprocess.run(['sh', '-c', 'until [ -e /srv/app/go ]; do sleep 0.1; done'], check=True)\n"
        "    start_response('200 OK', [('Content-Length', '4')])\n"
        "    return [b'done']\n"
    )
    service = deploy(machine, {"app.py": app}, "app:application", settings={"THREADS": "4"})
    service.wake()
    with service.load(clients=4, path="/wait", requests=1) as load:
        service.wait_busy(1)
        machine.systemctl("restart", "--no-block", service.unit)
        machine.wait_for(service.unit, ActiveState="deactivating")
        machine.write("/srv/app/go", "")
    assert load.record.statuses == {200: 4}, load.record


def test_a_stop_during_a_reload_is_no_failure(machine: Machine) -> None:
    """systemd ends the ExecReload= that waits for the outcome."""
    app = "import os, time\nwhile os.path.exists('/srv/app/hold'):\n    time.sleep(0.01)\n" + PLAIN
    service = deploy(machine, {"plain.py": app})
    service.wake()
    service.check(workers=2)
    machine.write("/srv/app/hold", "")
    machine.systemctl("reload", "--no-block", service.unit)
    eventually(lambda: "Reloading" in service.status, "a reload")
    machine.systemctl("stop", service.unit)
    machine.wait_for(service.unit, ActiveState="inactive", Result="success")


def test_a_stop_after_a_reload_that_still_drains(machine: Machine, opened: ExitStack) -> None:
    """A worker that was to give its connections to others hears that there will be none, and ends them itself."""
    service = deploy(machine, {"plain.py": HELD}, settings={"KEEPALIVE": "60", "THREADS": "4"})
    service.wake()
    old = service.worker_pids()
    machine.write("/srv/app/hold", "")
    slow = [opened.enter_context(service.connect()) for _ in range(4)]
    for client in slow:
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    service.wait_busy(1)
    machine.systemctl("reload", service.unit)
    assert old & {process.inner for process in machine.processes(service.unit)}, "an old worker is still at work"
    machine.systemctl("stop", "--no-block", service.unit)
    machine.wait_for(service.unit, ActiveState="deactivating")
    machine.path("/srv/app/hold").unlink()
    for client in slow:
        assert until_closed(client).startswith(b"HTTP/1.1 200 OK\r\n")
