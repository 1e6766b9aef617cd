"""An ASGI application is deployed anew, and nobody notices: clients and promises are test_no_request_fails.py's."""

import threading
from pathlib import Path

import pytest

from tests.support.machine import Machine
from tests.support.mix import Mix
from tests.support.service import Service, deploy

pytestmark = pytest.mark.once

APP = Path(__file__).resolve().parents[1] / "apps" / "plain_asgi.py"
WSGI = APP.with_name("plain.py")
CLIENTS = 24
TIMES = 3
pace = threading.Event()  # never set: to wait for the next deploy


@pytest.fixture
def service(machine: Machine) -> Service:
    found = deploy(machine, {"plain.py": APP}, drop_in="[Unit]\nStartLimitIntervalSec=0\n")
    found.ask()
    found.check(workers=2)
    assert any("Using worker: asgi" in line for line in machine.unit_messages(found.unit))
    return found


def test_reloads(machine: Machine, service: Service) -> None:
    main = service.main
    with Mix(service.connect, CLIENTS) as mix:
        mix.wait_answers()
        for number in range(TIMES):
            with mix.diary.entry(f"reload {number}"):
                machine.systemctl("reload", service.unit)
            pace.wait(1.0)
        mix.wait_answers()
    mix.check()
    assert len(mix.record.pids) >= 2 * (TIMES + 1), "every generation of two workers answered"
    service.check(workers=2, main=main)


def test_a_reload_brings_the_other_interface_and_the_next_one_brings_it_back(
    machine: Machine, service: Service
) -> None:
    with Mix(service.connect, CLIENTS) as mix:
        mix.wait_answers()
        for source in (WSGI, APP):
            machine.write("/srv/app/plain.py", source.read_text())
            with mix.diary.entry(f"reload to {source.stem}"):
                machine.systemctl("reload", service.unit)
            mix.wait_answers()
    mix.check()
    service.check(workers=2)
    said = [line for line in machine.unit_messages(service.unit) if "Using worker: " in line]
    assert [line.split("worker: ")[1].split()[0] for line in said] == ["asgi", "wsgi", "asgi"]


def test_upgrades(machine: Machine, service: Service) -> None:
    masters = {service.main}
    with Mix(service.connect, CLIENTS) as mix:
        mix.wait_answers()
        for number in range(TIMES):
            with mix.diary.entry(f"upgrade {number}"):
                masters.add(service.upgrade())
            pace.wait(1.0)
        mix.wait_answers()
    mix.check()
    assert len(masters) == TIMES + 1
    service.check(workers=2)


def test_restarts(machine: Machine, service: Service) -> None:
    with Mix(service.connect, CLIENTS) as mix:
        for number in range(2):
            mix.wait_answers()
            with mix.diary.entry(f"restart {number}"):
                machine.systemctl("restart", service.unit)
        mix.wait_answers()
    mix.check()
    service.check(workers=2)


def test_a_startup_that_fails_is_rolled_back(machine: Machine, service: Service) -> None:
    """Lifespan says that it has failed: the old workers serve on, and the reason is told."""
    main, before = service.main, service.worker_pids()
    machine.write("/srv/app/plain.py", APP.read_text().replace(".complete", ".failed"))
    machine.systemctl("reload", service.unit, check=False)
    assert service.ask().body == b"hello"
    service.check(workers=2, main=main)
    assert service.worker_pids() == before
    assert any("lifespan startup failed" in line for line in machine.unit_messages(service.unit))


def test_a_stop_ends_what_was_begun(machine: Machine, service: Service) -> None:
    sleeping = service.connect()
    with sleeping:
        sleeping.sendall(b"GET /sleep/2 HTTP/1.1\r\nHost: a\r\n\r\n")
        service.wait_busy(1)
        machine.systemctl("stop", service.unit)
        assert sleeping.recv(1000).startswith(b"HTTP/1.1 200 ")
    machine.wait_for(service.unit, ActiveState="inactive", Result="success", MainPID="0")
