"""The control socket as systemd's own tool knows it: `varlinkctl` asks a live service (systemd 257 has it)."""

import json

import pytest

from tests.support.machine import Machine
from tests.support.service import deploy

SOCKET = "/run/sdserve/control"
INTERFACE = "org.sdserve.Control1"


@pytest.fixture
def varlink(machine: Machine) -> Machine:
    if machine.systemd < 257:
        pytest.skip(f"systemd {machine.systemd} has no varlinkctl (tests/run --debian=trixie has)")
    return machine


def test_a_service_is_introspected_asked_and_followed(varlink: Machine) -> None:
    service = deploy(varlink)
    service.wake()

    def ctl(*args: str, check: bool = True) -> str:
        done = varlink.run("varlinkctl", *args, check=check)
        return done.stdout + ("" if check else done.stderr)

    assert "Product: sdserve" in ctl("info", SOCKET)
    described = ctl("introspect", SOCKET, INTERFACE)
    assert f"interface {INTERFACE}" in described
    assert "method Scale(" in described
    assert "error NoSuchWorker" in described
    told = json.loads(ctl("call", "--json=short", SOCKET, f"{INTERFACE}.Status", "{}"))
    assert told["status"]["pid"] == service.main
    told = json.loads(ctl("call", "--json=short", SOCKET, f"{INTERFACE}.Scale", '{"workers": 3}'))
    assert (told["wanted"], told["before"]) == (3, 2)
    followed = varlink.run(
        *("timeout", "2", "varlinkctl", "call", "--more", "--json=short"),
        *(SOCKET, f"{INTERFACE}.Status", '{"interval": 0.1}'),
        check=False,
    )
    lines = [json.loads(line) for line in followed.stdout.replace("\x1e", "").splitlines() if line.strip()]
    assert len(lines) > 1
    assert all("status" in line for line in lines)
    refused = varlink.run("varlinkctl", "call", SOCKET, f"{INTERFACE}.Stacks", '{"slot": 77}', check=False)
    assert refused.returncode != 0
    assert f"{INTERFACE}.NoSuchWorker" in refused.stdout


def test_a_unit_is_found_by_its_name(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    asked = machine.run("/opt/sdserve/bin/sdservectl", "-u", "sdserve", "wait", "--timeout", "20")
    assert asked.stdout.startswith("Running: 2 of 2 workers serving")
    nobody = machine.run("/opt/sdserve/bin/sdservectl", "-u", "sdserve@nobody", "status", check=False)
    assert nobody.returncode == 2
