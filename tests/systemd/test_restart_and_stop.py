"""Stop and restart: requests in progress are answered, connections wait in the backlog of the socket unit."""

import signal

from tests.support.machine import Machine
from tests.support.service import deploy


def test_restart_loses_no_new_connection(machine: Machine) -> None:
    service = deploy(machine, settings={"=DELAY": "0.05", "THREADS": "8"})
    service.wake()
    with service.load(clients=8, reuse=0) as load:
        for _ in range(3):
            load.wait_answers(50)
            before = service.main
            machine.systemctl("restart", service.unit)
            assert service.main not in (0, before)
        load.wait_answers(50)
    service.check(workers=2)
    assert not load.record.failures, load.record
    assert set(load.record.statuses) == {200}
    assert machine.get(service.unit, "NRestarts") == "0"


def test_stop_answers_what_it_has_begun(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    with service.load(clients=1, path="/sleep/1.5", requests=1) as load:
        service.wait_busy(1)
        machine.systemctl("stop", service.unit)
        machine.wait_for(service.unit, ActiveState="inactive", SubState="dead", Result="success", MainPID="0")
        machine.wait_for(service.socket, ActiveState="active")
    assert load.record.statuses == {200: 1}, load.record


def test_a_drain_may_take_longer_than_the_unit_allows(machine: Machine) -> None:
    service = deploy(machine, drop_in="[Service]\nTimeoutStopSec=1\n")
    service.wake()
    with service.load(clients=1, path="/sleep/3", requests=1) as load:
        service.wait_busy(1)
        machine.systemctl("stop", service.unit)
        machine.wait_for(service.unit, ActiveState="inactive", Result="success")
    assert load.record.statuses == {200: 1}, load.record


def test_a_boot_may_take_longer_than_the_unit_allows(machine: Machine) -> None:
    app = "import time\ntime.sleep(4.5)\ndef application(e, s):\n    s('200 OK', [])\n    return [b'slow']\n"
    service = deploy(machine, {"slow.py": app}, "slow:application", drop_in="[Service]\nTimeoutStartSec=3\n")
    machine.systemctl("start", service.unit)
    assert service.wake().body == b"slow"


def test_a_killed_master_is_restarted_on_the_same_socket(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    master, workers = service.master, service.workers

    master.kill(signal.SIGKILL)

    for process in [master, *workers]:
        process.wait_gone()
    assert service.ask().status == 200
    machine.wait_for(service.unit, ActiveState="active", NRestarts="1")
    service.check(workers=2)


def test_a_killed_worker_is_replaced(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    main, victim = service.main, service.workers[0]

    victim.kill(signal.SIGKILL)

    victim.wait_gone()
    service.check(workers=2, main=main)
    assert service.ask().status == 200
