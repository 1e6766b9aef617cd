"""Deploys that nobody notices: clients of all kinds, over TCP and a Unix socket; no failed request, none stale.

DEPLOYS says how many reloads and upgrades, at one a second (default 3 each, and half as many restarts, rolling reloads
as many), CLIENTS how many clients (default 32), RECYCLE_SECONDS for how long workers are recycled every 50 requests.
"""

import os
import threading
import time

import pytest

from tests.support.machine import Machine
from tests.support.mix import Mix
from tests.support.service import Service, deploy

DEPLOYS = int(os.environ.get("DEPLOYS", "3"))
CLIENTS = int(os.environ.get("CLIENTS", "32"))
RECYCLE_SECONDS = float(os.environ.get("RECYCLE_SECONDS", "4"))
PATH = "/run/test.sock"
ADDRESSES = {"tcp": "", "unix": f"[Socket]\nListenStream=\nListenStream={PATH}\n"}
pace = threading.Event()  # never set: to wait for the next deploy


@pytest.fixture(params=ADDRESSES)
def socket_drop_in(request: pytest.FixtureRequest) -> str:
    return ADDRESSES[request.param]


def deploy_busy(machine: Machine, socket_drop_in: str, **settings: str) -> Service:
    """An application of waits, with threads for all clients of either worker."""
    service = deploy(
        machine,
        settings={"WORKERS": "2", "THREADS": str(CLIENTS), **settings},
        drop_in="[Unit]\nStartLimitIntervalSec=0\n",
        socket_drop_in=socket_drop_in,
        address=PATH if socket_drop_in else None,
    )
    service.ask()
    service.check(workers=2)
    return service


def finish(mix: Mix, name: str) -> None:
    mix.check()
    print(f"{name}: {mix.story()}")


@pytest.mark.parametrize("strategy", ["all", "rolling"])
def test_reloads(machine: Machine, socket_drop_in: str, strategy: str) -> None:
    service = deploy_busy(machine, socket_drop_in, RELOAD_STRATEGY=strategy)
    main = service.main
    with Mix(service.connect, CLIENTS) as mix:
        mix.wait_answers()
        for number in range(DEPLOYS):
            with mix.diary.entry(f"reload {number}"):
                machine.systemctl("reload", service.unit)
            pace.wait(1.0)
        mix.wait_answers()
    finish(mix, f"{DEPLOYS} reloads, {strategy}")
    assert len(mix.record.pids) >= 2 * (DEPLOYS + 1), "every generation of two workers answered"
    service.check(workers=2, main=main)


def test_upgrades(machine: Machine, socket_drop_in: str) -> None:
    service = deploy_busy(machine, socket_drop_in)
    masters = {service.main}
    with Mix(service.connect, CLIENTS) as mix:
        mix.wait_answers()
        for number in range(DEPLOYS):
            with mix.diary.entry(f"upgrade {number}"):
                masters.add(service.upgrade())
            pace.wait(1.0)
        mix.wait_answers()
    finish(mix, f"{DEPLOYS} upgrades")
    assert len(masters) == DEPLOYS + 1
    assert len(mix.record.pids) >= 2 * (DEPLOYS + 1), "every generation of two workers answered"
    service.check(workers=2)


def test_restarts(machine: Machine, socket_drop_in: str) -> None:
    service = deploy_busy(machine, socket_drop_in)
    restarts = max(2, DEPLOYS // 2)
    with Mix(service.connect, CLIENTS) as mix:
        for number in range(restarts):
            mix.wait_answers()
            with mix.diary.entry(f"restart {number}"):
                machine.systemctl("restart", service.unit)
        mix.wait_answers()
    finish(mix, f"{restarts} restarts")
    service.check(workers=2)


def test_recycling(machine: Machine, socket_drop_in: str) -> None:
    service = deploy_busy(machine, socket_drop_in, MAX_REQUESTS="50", MAX_REQUESTS_JITTER="10")
    main = service.main
    until = time.monotonic() + RECYCLE_SECONDS
    with Mix(service.connect, CLIENTS) as mix, mix.diary.entry("recycling"):
        while time.monotonic() < until:
            mix.wait_answers()
    finish(mix, f"recycling for {RECYCLE_SECONDS:g} s")
    assert len(mix.record.pids) > 4, mix.story()
    service.check(workers=2, main=main)
