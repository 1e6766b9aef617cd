"""idle_exit: a service that nobody uses ends, keeps its socket, and is there again for the next client."""

from tests.support.machine import Machine
from tests.support.service import deploy
from tests.support.waiting import eventually

UNLIMITED = "[Unit]\nStartLimitIntervalSec=0\n"


def test_ends_and_comes_back(machine: Machine) -> None:
    service = deploy(machine, settings={"IDLE_EXIT": "0.5"}, drop_in=UNLIMITED)
    for _ in range(3):
        assert service.ask().status == 200
        machine.wait_for(service.unit, ActiveState="inactive", SubState="dead", Result="success")
        machine.wait_for(service.socket, ActiveState="active", SubState="listening")
    assert machine.get(service.unit, "NRestarts") == "0"
    assert any("idle_exit" in line for line in machine.unit_messages(service.unit))


def test_no_connection_is_lost_in_the_window(machine: Machine) -> None:
    service = deploy(machine, settings={"IDLE_EXIT": "0.05", "WORKERS": "1"}, drop_in=UNLIMITED)
    with service.load(clients=2, reuse=0, think=0.06) as load:
        eventually(lambda: len(load.record.pids) >= 8, "eight starts of the service", timeout=60)
    assert not load.record.failures, load.record


def test_a_service_in_use_stays(machine: Machine) -> None:
    service = deploy(machine, settings={"IDLE_EXIT": "1"}, drop_in=UNLIMITED)
    with service.load(clients=2, path="/sleep/1.5", requests=2) as load:
        load.wait_answers(2)
        main = service.main
    assert load.record.statuses == {200: 4}, load.record
    assert main
