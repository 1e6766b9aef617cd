"""The units as shipped: systemd finds nothing to complain of, and the shipped drop-ins hold what they promise."""

import re

import pytest

from tests.support.machine import UNITS, Machine
from tests.support.service import deploy


def test_systemd_finds_no_fault(machine: Machine) -> None:
    for unit in ("sdserve.socket", "sdserve.service", "sdserve@.socket", "sdserve@.service"):
        machine.install(unit)
    machine.reload_units()
    for unit in ("sdserve.socket", "sdserve.service", "sdserve@shop.socket", "sdserve@shop.service"):
        done = machine.run("systemd-analyze", "verify", "--man=no", f"/run/systemd/system/{unit}")
        assert "sdserve" not in done.stdout, done.stdout


@pytest.mark.parametrize("names", [["strict"], ["isolated"], ["strict", "isolated"], ["user"]], ids=" ".join)
def test_a_shipped_drop_in_serves_reloads_upgrades_and_stops(machine: Machine, names: list[str]) -> None:
    service = deploy(machine, start=False)
    for name in names:
        text = (UNITS / "sdserve.service.d" / f"{name}.conf").read_text()
        machine.drop_in(service.unit, text, f"{name}.conf")
    machine.reload_units()
    machine.systemctl("start", service.socket)
    assert service.ask().status == 200
    machine.systemctl("reload", service.unit)
    service.upgrade()
    assert service.ask().status == 200
    service.check(workers=2)
    machine.systemctl("stop", service.unit)
    machine.wait_for(service.unit, ActiveState="inactive", Result="success")
    analysis = machine.run("systemd-analyze", "security", "--no-pager", service.unit).stdout
    level = re.search(r"exposure level for .*: ([0-9.]+)", analysis)
    assert level and float(level[1]) < (1.0 if "isolated" in names and "strict" in names else 3.0), analysis


def test_nothing_is_left_behind(machine: Machine) -> None:
    service = deploy(machine)
    service.ask()
    assert machine.path("/run/sdserve/control").is_socket()
    machine.systemctl("stop", service.socket, service.unit)
    assert not machine.path("/run/sdserve").exists()
    assert not machine.processes(service.unit)
