"""kill -9 of a master amid a reload, however that was begun: it costs what any other death of a master costs."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.load import ask
from tests.support.machine import UNITS, Machine
from tests.support.service import PLAIN, Service, deploy
from tests.support.waiting import eventually

APP = "import os, time\nwhile os.path.exists('/srv/app/hold'):\n    time.sleep(0.01)\n" + PLAIN
NOTIFY_RELOAD = (UNITS / "sdserve.service.d" / "notify-reload.conf").read_text()
LATE = 15  # seconds; without its master systemd would wait for WatchdogSec=, 30 seconds, or for TimeoutStartSec=, 90


def hup(service: Service) -> None:
    service.machine.systemctl("kill", "-s", "HUP", "--kill-whom=main", service.unit)


def hup_to_all(service: Service) -> None:
    service.machine.systemctl("kill", "-s", "HUP", service.unit)


def by_an_operator(service: Service) -> None:
    service.machine.run("/opt/sdserve/bin/sdservectl", "reload", check=False)


def by_the_unit(service: Service) -> None:
    service.machine.systemctl("reload", service.unit, check=False)


def twice(service: Service) -> None:
    service.machine.systemctl("reload", "--no-block", service.unit)
    eventually(lambda: "Reloading" in service.status, "a reload")
    hup(service)


@pytest.mark.parametrize("drop_in", ["", NOTIFY_RELOAD], ids=["notify", "notify-reload"])
@pytest.mark.parametrize("begin", [hup, hup_to_all, by_an_operator, by_the_unit, twice])
def test_it_is_followed_within_seconds(machine: Machine, begin: Callable[[Service], None], drop_in: str) -> None:
    if drop_in and machine.systemd < 253:
        pytest.skip(f"systemd {machine.systemd} has no Type=notify-reload (tests/run --debian=trixie has)")
    settings = {"THREADS": "8", "KEEPALIVE": "60"}
    service = deploy(machine, {"plain.py": APP}, settings=settings, drop_in=drop_in)
    service.wake()
    service.check(workers=2)
    old = service.worker_pids()
    idle = [service.connect() for _ in range(20)]
    for client in idle:
        assert ask(client).status == 200
    with ThreadPoolExecutor(1) as aside, service.load(clients=4, path="/sleep/2", requests=1) as load:
        service.wait_busy(1)
        machine.write("/srv/app/hold", "")
        aside.submit(begin, service)
        eventually(lambda: "Reloading" in service.status, "a reload")
        service.master.kill(signal.SIGKILL)
        machine.path("/srv/app/hold").unlink()
        machine.wait_for(service.unit, LATE, ActiveState="active", NRestarts="1")
    assert load.record.statuses == {200: 4}, (load.record, machine.story())
    service.check(workers=2)
    assert not {ask(client).pid for client in idle} & old
