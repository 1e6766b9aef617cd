"""Type=notify-reload, the shipped drop-in for systemd 253 and newer: reload, upgrade and restart are what they were."""

import signal
from typing import Any

import pytest

from sdserve.systemd import fdstore
from tests.support.load import ask
from tests.support.machine import UNITS, Machine
from tests.support.service import PLAIN, Service, deploy
from tests.support.waiting import eventually

SHIPPED = (UNITS / "sdserve.service.d" / "notify-reload.conf").read_text()
BY_SIGNAL = SHIPPED + "ReloadSignal=SIGHUP\nExecReload=\n"
SLOW = "import time\ntime.sleep(0.7)\n"
APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"{text}"]
"""


def app(text: str) -> str:
    return APP.replace("{text}", text)


@pytest.fixture(autouse=True)
def _new_enough(machine: Machine) -> None:
    if machine.systemd < 253:
        pytest.skip(f"systemd {machine.systemd} has no Type=notify-reload (tests/run --debian=trixie has)")


def deployed(machine: Machine, drop_in: str = SHIPPED, **options: Any) -> Service:
    return deploy(machine, {"one.py": app("old"), "plain.py": PLAIN}, "one:application", drop_in=drop_in, **options)


@pytest.mark.parametrize("drop_in", [SHIPPED, BY_SIGNAL], ids=["shipped", "by signal"])
def test_returns_when_the_new_code_serves(machine: Machine, drop_in: str) -> None:
    service = deployed(machine, drop_in)
    assert service.wake().body == b"old"
    main = service.main
    machine.write("/srv/app/one.py", SLOW + app("new"))

    machine.systemctl("reload", service.unit)

    assert [service.ask().body for _ in range(8)] == [b"new"] * 8
    service.check(workers=2, main=main)


def test_fails_when_the_new_code_cannot_serve(machine: Machine) -> None:
    service = deployed(machine)
    service.wake()
    main, workers = service.main, service.worker_pids()
    machine.write("/srv/app/one.py", "def broken(:\n")

    assert machine.systemctl("reload", service.unit, check=False).returncode != 0

    still_old(service, main, workers, "one.py")
    assert any("sdservectl" in line and "one.py" in line for line in machine.unit_messages(service.unit))
    machine.write("/srv/app/one.py", app("new"))
    machine.systemctl("reload", service.unit)
    assert service.ask().body == b"new"


def test_fails_when_the_configuration_is_bad(machine: Machine) -> None:
    machine.write("/srv/app/conf.py", "timeout = 20\n")
    service = deployed(machine, settings={"CONFIG": "/srv/app/conf.py"})
    service.wake()
    main, workers = service.main, service.worker_pids()
    machine.write("/srv/app/conf.py", "timeuot = 20\n")

    assert machine.systemctl("reload", service.unit, check=False).returncode != 0

    still_old(service, main, workers, "timeuot")


def test_by_signal_alone_systemd_takes_a_roll_back_for_a_success(machine: Machine) -> None:
    """What the drop-in's ExecReload= is for: only the status and the log tell."""
    service = deployed(machine, BY_SIGNAL)
    service.wake()
    main, workers = service.main, service.worker_pids()
    machine.write("/srv/app/one.py", "def broken(:\n")

    assert machine.systemctl("reload", service.unit).returncode == 0

    still_old(service, main, workers, "one.py")
    assert machine.get(service.unit, "ReloadResult") == "success"


def still_old(service: Service, main: int, workers: set[int], reason: str) -> None:
    assert service.ask().body == b"old"
    service.check(workers=2, main=main)
    assert service.worker_pids() == workers
    assert reason in service.status


def test_during_a_hup_by_kill_the_unit_stays_active(machine: Machine) -> None:
    """A unit that is "reloading" at the master's own word is not restarted when that dies; its status text tells."""
    service = deployed(machine)
    service.wake()
    workers = service.worker_pids()
    machine.write("/srv/app/one.py", SLOW + app("new"))
    machine.systemctl("kill", "-s", "HUP", "--kill-whom=main", service.unit)
    eventually(lambda: "Reloading" in service.status, "a reload")
    assert machine.get(service.unit, "ActiveState") == "active"
    eventually(lambda: "reload succeeded" in service.status, "the end of the reload")
    assert machine.get(service.unit, "ActiveState") == "active"
    assert not workers & service.worker_pids()
    assert service.ask().body == b"new"


def test_upgrades_and_reloads_under_load(machine: Machine) -> None:
    service = deployed(machine)
    service.wake()
    masters = {service.main}
    with service.load(clients=8) as load:
        for _ in range(3):
            load.wait_answers(50)
            machine.systemctl("reload", service.unit)
            load.wait_answers(50)
            masters.add(service.upgrade())
        load.wait_answers(50)
    assert len(masters) == 4
    assert not load.record.failures, load.record
    assert not load.record.stale, load.record
    service.check(workers=2)
    assert machine.get(service.unit, "NRestarts") == "0"


def test_a_reload_in_the_middle_of_an_upgrade_ends(machine: Machine) -> None:
    """The old master carries it out or, if it hands over meanwhile, says why it did not; nobody waits for ever."""
    service = deployed(machine)
    service.wake()
    old = service.main
    machine.write("/srv/app/one.py", SLOW + app("new"))
    with service.load(clients=4) as load:
        machine.systemctl("kill", "-s", "USR2", service.unit)
        reload = machine.systemctl("reload", service.unit, check=False)
        eventually(lambda: service.main not in (0, old), "a new main process")
        load.wait_answers(20)
    service.check(workers=2)
    assert service.ask().body == b"new"
    said = machine.unit_messages(service.unit)
    assert reload.returncode == 0 or any("sdservectl" in line and "stopped" in line for line in said), machine.story()
    assert not load.record.failures, load.record
    machine.systemctl("reload", service.unit)
    service.check(workers=2)


def test_idle_connections_outlive_reload_upgrade_and_restart(machine: Machine) -> None:
    service = deployed(machine, settings={"KEEPALIVE": "60", "WSGI_APP": "plain:application"})
    service.wake()
    connections = [service.connect() for _ in range(20)]
    for connection in connections:
        ask(connection)
    for change in (
        lambda: machine.systemctl("reload", service.unit),
        service.upgrade,
        lambda: machine.systemctl("restart", service.unit),
    ):
        before = service.worker_pids()
        change()
        assert not {ask(connection).pid for connection in connections} & before
    stored = len((*fdstore.NAMES, fdstore.PROOF, fdstore.COUNTERS))
    assert machine.get(service.unit, "NFileDescriptorStore") == str(stored)


def test_the_watchdog_sees_a_stopped_master(machine: Machine) -> None:
    service = deployed(machine, SHIPPED + "WatchdogSec=2\n")
    service.wake()
    machine.systemctl("reload", service.unit)
    new = service.upgrade()
    service.check(workers=2, main=new)
    service.master.kill(signal.SIGSTOP)
    machine.wait_for(service.unit, NRestarts="1", ActiveState="active")
    assert service.main != new
    assert service.ask().status == 200


def test_exit_on_idle_also_after_a_reload(machine: Machine) -> None:
    drop_in = SHIPPED + "[Unit]\nStartLimitIntervalSec=0\n"
    service = deployed(machine, drop_in, settings={"IDLE_EXIT": "0.7"})
    for _ in range(2):
        with service.load(clients=2, path="/sleep/0.2") as load:  # in use until the reload is over
            load.wait_answers(1)
            machine.wait_for(service.unit, ActiveState="active")
            machine.systemctl("reload", service.unit)
        assert not load.record.failures, load.record
        machine.wait_for(service.unit, ActiveState="inactive", SubState="dead", Result="success")
        machine.wait_for(service.socket, ActiveState="active", SubState="listening")
