"""A stop or a restart of the unit comes at the moment of a hand-over, or while the old master still drains.

systemd sends one signal, to whom it takes for the main process, and hears nothing of another one from then on.
"""

import signal

import pytest

from tests.support.machine import Machine
from tests.support.processes import Process
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

SLOW = "/sleep/2"


def successor(machine: Machine, service: Service, old: Process) -> Process:
    """The new master, which serves and has told the old one so; that was stopped before it could hear it."""
    old.kill(signal.SIGUSR2)
    eventually(lambda: "to pid" in service.status, "an upgrade")
    old.kill(signal.SIGSTOP)
    said = "beside the old master"
    eventually(lambda: any(said in line for line in machine.unit_messages(service.unit)), "a new master that serves")
    [new] = (each for each in machine.processes(service.unit) if each.parent == machine.pid and each.inner != old.inner)
    return new


def killed(machine: Machine) -> list[str]:
    return [line for line in machine.messages() if "timed out" in line or "Killing process" in line]


@pytest.mark.parametrize("command", ["stop", "restart"])
def test_it_ends_both_masters_and_no_request(machine: Machine, command: str) -> None:
    """systemd continues whom it stops: the old master finds the new one's word and the signal in one turn."""
    service = deploy(machine, settings={"THREADS": "4", "WARMUP": "/sleep/1"})  # the new one serves after a second only
    service.wake()
    old = service.master
    with service.load(clients=6, path=SLOW, reuse=0) as load:
        service.wait_busy(1)
        new = successor(machine, service, old)
        load.wait_answers(6)
        machine.systemctl(command, service.unit)
        assert not old.alive and not new.alive
        load.wait_answers(6)
    assert not killed(machine), machine.story()
    assert not load.record.lost, (load.record, machine.story())
    service.check(workers=2)


@pytest.mark.parametrize("command", ["stop", "restart"])
def test_an_old_master_that_was_stopped_while_it_drains_is_continued(machine: Machine, command: str) -> None:
    service = deploy(machine, settings={"THREADS": "4"})
    service.wake()
    old = service.master
    with service.load(clients=2, path=SLOW, reuse=0) as load:
        service.wait_busy(1)
        machine.run("/opt/sdserve/bin/sdservectl", "upgrade")
        old.kill(signal.SIGSTOP)
        machine.systemctl(command, service.unit)
        assert not old.alive
        load.wait_answers(2)
    assert not any("is killed" in line for line in machine.messages()), machine.story()
    assert not load.record.lost, (load.record, machine.story())


def test_a_restart_ends_both_masters_that_wait_for_the_operator(machine: Machine) -> None:
    service = deploy(machine, settings={"UPGRADE": "manual"})
    service.wake()
    old = service.master
    machine.run("/opt/sdserve/bin/sdservectl", "upgrade")
    machine.systemctl("restart", service.unit)
    assert not old.alive and not killed(machine), machine.story()
    service.check(workers=2)


def test_a_stop_while_the_old_master_drains_resets_no_connection(machine: Machine) -> None:
    """The workers of the old one had gone on giving their connections to those of the new one, which had left."""
    service = deploy(machine, settings={"THREADS": "8"})
    service.wake()
    with service.load(clients=8, path="/sleep/0.5") as kept, service.load(clients=2, path=SLOW) as slow:
        for _ in range(3):
            kept.wait_answers(16)
            slow.wait_answers(1)
            machine.run("/opt/sdserve/bin/sdservectl", "upgrade")
            machine.systemctl("stop", service.unit)
        kept.wait_answers(8)
    assert not kept.record.failures, (kept.record, machine.story())
    assert not slow.record.failures, (slow.record, machine.story())


NAMES_MAIN = """
import socket

def application(environ, start_response):
    pid = environ["PATH_INFO"][1:]
    if pid:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"MAINPID=" + pid.encode(), "/run/systemd/notify")
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""
"""It tells systemd of another main process, in place of an old master at just the right moment."""


def test_a_new_master_is_left_alone_before_it_hears_that_it_is_the_main_process(machine: Machine) -> None:
    """systemd has heard it already. The service must not count as finished: nobody would start it again."""
    service = deploy(machine, {"plain.py": NAMES_MAIN}, drop_in="[Service]\nNotifyAccess=all\n")
    service.wake()
    old = service.master
    new = successor(machine, service, old)
    service.ask(f"/{new.inner}")
    machine.wait_for(service.unit, MainPID=str(new.inner))
    old.kill(signal.SIGKILL)
    machine.wait_for(service.unit, ActiveState="active", NRestarts="1")
    service.check(workers=2)
