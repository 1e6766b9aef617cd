"""The first request starts the service: systemd listens, sdserve comes when it is needed."""

from tests.support.machine import Machine
from tests.support.service import PLAIN, deploy


def test_the_first_request_starts_the_service(machine: Machine) -> None:
    service = deploy(machine)
    machine.wait_for(service.unit, ActiveState="inactive")
    machine.wait_for(service.socket, ActiveState="active", SubState="listening")

    answer = service.ask()

    assert (answer.status, answer.body) == (200, b"hello")
    service.check(workers=2)
    assert answer.pid in service.worker_pids()
    machine.wait_for(service.socket, ActiveState="active", SubState="running")


def test_started_by_hand_it_serves_the_socket_too(machine: Machine) -> None:
    service = deploy(machine, start=False)
    machine.systemctl("start", service.unit)
    service.check(workers=2)
    machine.wait_for(service.socket, ActiveState="active")
    assert service.ask().status == 200


def test_start_returns_when_every_worker_can_serve(machine: Machine) -> None:
    slow = "import os, time\ntime.sleep(0.7)\nfrom plain import application\nopen(f'imported-{os.getpid()}', 'w')\n"
    settings = {"CHDIR": "/var/lib/sdserve", "PYTHONPATH": "/srv/app"}
    service = deploy(machine, {"slow.py": slow, "plain.py": PLAIN}, "slow:application", settings)
    machine.systemctl("start", service.unit)
    # No waiting here: `systemctl start` has waited for READY=1.
    imported = {int(each.name.partition("-")[2]) for each in machine.path("/var/lib/sdserve/").glob("imported-*")}
    assert len(imported) == 2
    assert service.worker_pids() == imported
    assert service.ask().status == 200


def test_the_environment_of_systemd_stays_with_the_master(machine: Machine) -> None:
    service = deploy(machine)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        assert service.ask(f"/environ/{name}").body == b"", name
