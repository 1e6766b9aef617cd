"""kill -9 of the master, or the watchdog's ABRT: nothing that its workers hold is lost with it.

CONNECTIONS says how many are idle (default 200), RUNNING how many requests are in progress (default 12).
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.load import ask
from tests.support.machine import CHECKOUT, Machine
from tests.support.service import PLAIN, Service, deploy
from tests.support.waiting import eventually

CONNECTIONS = int(os.environ.get("CONNECTIONS", "200"))
RUNNING = int(os.environ.get("RUNNING", "12"))
pace = threading.Event()  # never set
WATCHED = "[Service]\nWatchdogSec=2\n"
# An application, and how long its requests last: of one with a lifespan half the time is kept for its shutdown.
WSGI = PLAIN, 4
ASGI = (CHECKOUT / "tests" / "apps" / "plain_asgi.py").read_text(), 2


pytestmark = pytest.mark.usefixtures("many_descriptors")


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("app", [WSGI, ASGI], ids=["wsgi", "asgi"])
@pytest.mark.parametrize(("how", "result"), [(signal.SIGKILL, "signal"), (signal.SIGSTOP, "watchdog")])
def test_neither_idle_connections_nor_running_requests_are_lost(
    machine: Machine, opened: ExitStack, how: signal.Signals, result: str, app: tuple[str, int]
) -> None:
    watched = WATCHED if how is signal.SIGSTOP else ""
    source, seconds = app
    service = deploy(machine, {"plain.py": source}, settings={"KEEPALIVE": "60", "THREADS": "32"}, drop_in=watched)
    service.wake()
    service.check(workers=2)
    idle = [opened.enter_context(service.connect()) for _ in range(CONNECTIONS)]
    for client in idle:
        assert ask(client).status == 200
    master, workers = service.master, service.workers
    old = service.worker_pids()
    running = service.load(clients=RUNNING, path=f"/sleep/{seconds}", requests=1)
    with running:
        service.wait_busy(1)
        master.kill(how)  # a master that was stopped does not ping any more, and systemd sends ABRT
        master.wait_gone()
        began = time.monotonic()
        while (answer := service.ask()).pid in old:
            continue
        print(f"{how.name}: the first new client had its answer after {time.monotonic() - began:.1f} s")
    assert answer.status == 200
    assert running.record.statuses == {200: RUNNING}, running.record
    assert set(running.record.pids) & old, "what a worker had taken is finished by it; the rest waits for the next one"
    machine.wait_for(service.unit, ActiveState="active", NRestarts="1")
    service.check(workers=2)
    assert not any(worker.alive for worker in workers)
    now = {ask(client).pid for client in idle}
    assert not now & old
    assert any(f"Failed with result '{result}'" in line for line in machine.unit_messages(service.unit))


def test_the_watchdog_leaves_time_to_finish(machine: Machine) -> None:
    """It kills whoever is left WatchdogSec= after the last ping, however long before its death the master sent that."""
    settings = {"THREADS": "8", "ORPHAN_TIMEOUT": "3.5"}
    service = deploy(machine, settings=settings, drop_in="[Service]\nWatchdogSec=5\n")
    service.wake()
    service.check(workers=2)
    _, second, third = pings(service, 3)
    pace.wait(third + 0.9 * (third - second) - time.monotonic() - 0.3)
    with service.load(clients=4, path="/sleep/3.2", requests=1) as load:
        pace.wait(0.3)  # the next ping is near
        service.master.kill(signal.SIGKILL)
    assert load.record.statuses == {200: 4}, load.record
    assert not any("timeout" in line or "WatchdogSec" in line for line in machine.unit_messages(service.unit))


def pings(service: Service, count: int) -> list[float]:
    """When systemd heard the next signs of life (monotonic seconds)."""
    heard: list[str] = []
    while len(heard) < count:
        last = heard[-1] if heard else "0"

        def later(last: str = last) -> str:
            stamp = service.machine.get(service.unit, "WatchdogTimestampMonotonic")
            return stamp if stamp != last else ""

        heard.append(eventually(later, "a sign of life"))
    return [int(each) / 1e6 for each in heard]


def test_the_pause_for_new_clients_is_bounded(machine: Machine) -> None:
    """A request that takes longer than orphan_timeout is given up, so that the next master may start."""
    service = deploy(machine, settings={"THREADS": "4", "ORPHAN_TIMEOUT": "1"})
    service.wake()
    with service.load(clients=1, path="/sleep/60", requests=1) as load:
        service.wait_busy(1)
        before = service.main
        service.master.kill(signal.SIGKILL)
        eventually(lambda: service.main not in (0, before), "a new master")
        assert service.ask().status == 200
    assert len(load.record.lost) == 1, load.record


@pytest.mark.parametrize("boot", [0, 3])
def test_a_new_master_that_was_not_told_to_take_over_leaves(machine: Machine, opened: ExitStack, boot: int) -> None:
    """The old one dies while the new one boots, or beside it: no unit may go on without a main process."""
    app = f"import os, time\nif os.path.exists('/srv/app/slow'):\n    time.sleep({boot})\n" + PLAIN
    settings = {"KEEPALIVE": "600", "UPGRADE": "manual"}
    service = deploy(machine, {"plain.py": app}, settings=settings)
    service.wake()
    service.check(workers=2)
    idle = [opened.enter_context(service.connect()) for _ in range(20)]
    for client in idle:
        assert ask(client).status == 200
    machine.write("/srv/app/slow", "")
    master = service.master
    machine.systemctl("kill", "-s", "USR2", "--kill-whom=main", service.unit)
    beside = 3 + (0 if boot else 3)
    eventually(lambda: len(machine.processes(service.unit)) >= beside, "a new master")
    machine.path("/srv/app/slow").unlink()
    master.kill(signal.SIGKILL)
    machine.wait_for(service.unit, ActiveState="active", SubState="running", NRestarts="1", timeout=30)
    service.check(workers=2)
    assert {ask(client).pid for client in idle} <= service.worker_pids()


def test_a_worker_that_cannot_leave_is_killed(machine: Machine) -> None:
    """One that was stopped hears of nothing; the watchdog, which nobody feeds any more, ends it."""
    service = deploy(machine, drop_in=WATCHED)
    service.wake()
    service.check(workers=2)
    before, workers = service.main, service.workers
    workers[0].kill(signal.SIGSTOP)
    service.master.kill(signal.SIGKILL)
    eventually(lambda: service.main not in (0, before), "a new master")
    assert not any(worker.alive for worker in workers)
    assert service.ask().status == 200
    service.check(workers=2)


def test_what_an_application_left_running_does_not_hold_up_the_end(machine: Machine) -> None:
    """A stop ends the programs that nobody waits for, too, and at once."""
    app = (
        "import subprocess\n"
        "def application(environ, start_response):\n"
        "    subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "    start_response('200 OK', [('Content-Length', '4')])\n"
        "    return [b'done']\n"
    )
    service = deploy(machine, {"app.py": app}, "app:application")
    service.wake()
    machine.systemctl("stop", service.unit)
    machine.wait_for(service.unit, ActiveState="inactive", Result="success")
    assert not machine.processes(service.unit)
    assert not [line for line in machine.unit_messages(service.unit) if "timed out" in line or "SIGKILL" in line]


def test_requests_are_finished_where_no_thread_can_be_started(machine: Machine) -> None:
    """The clock of an orphan is a thread as a rule; without room for one, it leaves all the same."""
    service = deploy(machine, settings={"THREADS": "8", "ORPHAN_TIMEOUT": "3"})
    service.wake()
    service.check(workers=2)
    with (
        service.load(clients=4, path="/sleep/1.5", requests=1) as load,
        service.load(clients=1, path="/sleep/60") as stuck,
    ):
        service.wait_busy(1)
        for process in machine.processes(service.unit):
            process.set_soft_limit("nproc", 1)
        before = service.main
        service.master.kill(signal.SIGKILL)
        eventually(lambda: service.main not in (0, before), "a new master", 30)
        stuck.stop()
    assert load.record.statuses == {200: 4}, load.record
    assert not any("Exception" in line for line in machine.unit_messages(service.unit))


def test_requests_are_finished_when_the_master_dies_while_its_workers_leave(machine: Machine) -> None:
    """Their time is shorter from then on: who asks again at once gets a last answer while there is time for it."""
    service = deploy(machine, settings={"THREADS": "16"})
    service.wake()
    service.check(workers=2)
    with ExitStack() as clients:
        loads = [service.load(clients=2, path=f"/sleep/{pause}") for pause in (1.3, 1.6, 1.9, 2.2, 2.5)]
        for load in loads:
            clients.enter_context(load)
        for load in loads:
            load.wait_answers(2)
        old = service.master
        machine.run("/opt/sdserve/bin/sdservectl", "upgrade")
        old.kill(signal.SIGKILL)
        for load in loads:
            load.wait_answers(8)
    for load in loads:
        assert not load.record.lost, (load.record, machine.story())
    service.check(workers=2)


def test_requests_are_finished_when_the_watchdog_ends_a_reload(machine: Machine) -> None:
    """Its ABRT goes to the ExecReload=, too, which must outlive the master: systemd kills the workers after it."""
    service = deploy(machine, settings={"THREADS": "8"}, drop_in="[Service]\nWatchdogSec=10\n")
    service.wake()
    service.check(workers=2)
    with service.load(clients=4, path="/sleep/2") as load:
        service.wait_busy(1)
        service.master.kill(signal.SIGSTOP)
        machine.systemctl("reload", "--no-block", service.unit)
        machine.wait_for(service.unit, 40, NRestarts="1")
        load.wait_answers(4)
    assert not load.record.lost, (load.record, machine.story())
    assert any("Watchdog timeout" in line for line in machine.messages())
    service.check(workers=2)


@pytest.mark.parametrize("upgrade", [False, True])
def test_requests_are_finished_when_the_master_dies_during_a_reload(machine: Machine, upgrade: bool) -> None:
    """systemd kills what is left as soon as its ExecReload= has ended, so that one waits, and no new master ends it."""
    app = "import os, time\nwhile os.path.exists('/srv/app/hold'):\n    time.sleep(0.01)\n" + PLAIN
    service = deploy(machine, {"plain.py": app}, settings={"THREADS": "8"})
    service.wake()
    service.check(workers=2)
    with service.load(clients=4, path="/sleep/2", requests=1) as load:
        service.wait_busy(1)
        machine.write("/srv/app/hold", "")
        if upgrade:
            machine.systemctl("kill", "-s", "USR2", "--kill-whom=main", service.unit)
            eventually(lambda: len(machine.processes(service.unit)) > 3, "a new master, which boots")
        machine.systemctl("reload", "--no-block", service.unit)
        if upgrade:
            machine.wait_for(service.unit, ActiveState="reloading")
        else:
            eventually(lambda: "Reloading" in service.status, "a reload")
        service.master.kill(signal.SIGKILL)
        machine.path("/srv/app/hold").unlink()
    assert load.record.statuses == {200: 4}, load.record
    assert "Traceback" not in str(machine.unit_messages(service.unit)), "nobody is forked by a master that leaves"
    machine.wait_for(service.unit, ActiveState="active", NRestarts="1")
    service.check(workers=2)
