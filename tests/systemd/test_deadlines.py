"""Everything that the master waits for ends: who never comes, never leaves or never moves is waited for no longer."""

import signal
import time
import uuid

import pytest

from sdserve.errors import NoRoomError
from tests.support.machine import Machine
from tests.support.processes import Process
from tests.support.service import PLAIN, Service, deploy
from tests.support.waiting import eventually


def test_an_old_master_that_hangs_does_not_keep_the_unit_from_stopping(machine: Machine) -> None:
    service = deploy(machine, settings={"GRACEFUL_TIMEOUT": "3"})
    service.wake()
    old = service.master
    with service.load(clients=1, path="/sleep/30", requests=1):
        service.wait_busy(1)  # the old master drains for as long as it may
        service.upgrade()
        machine.systemctl("stop", "--no-block", service.unit)

        def is_gone() -> bool:
            """To be stopped once would not be enough: the new master continues it, and so does systemd."""
            if old.alive:
                old.kill(signal.SIGSTOP)
            return not old.alive

        eventually(is_gone, "the old master, stopped again and again, is killed")
    machine.wait_for(service.unit, ActiveState="inactive", Result="success", MainPID="0")
    assert any(f"(pid {old.inner}) has not ended" in line for line in machine.unit_messages(service.unit))


def test_an_old_master_that_hangs_is_ended_while_the_service_runs(machine: Machine) -> None:
    service = deploy(machine, settings={"GRACEFUL_TIMEOUT": "2"})
    service.wake()
    old = service.master
    with service.load(clients=1, path="/sleep/5", requests=1):  # longer than the upgrade takes
        service.wait_busy(1)
        new = service.upgrade()
        old.kill(signal.SIGSTOP)
        service.check(workers=2, main=new)  # and nobody else is left


@pytest.mark.parametrize("deed", ["stop", "restart"])
def test_a_new_master_that_hangs_does_not_keep_the_unit_from_stopping(machine: Machine, deed: str) -> None:
    """A stopped process does not hear TERM, and with ExitType=cgroup the service is not over while it is there."""
    service = deploy(machine)
    service.wake()
    old, before = service.main, {process.pid for process in machine.processes(service.unit)}
    machine.write("/srv/app/plain.py", "import threading\nthreading.Event().wait()\n")
    machine.systemctl("kill", "-s", "USR2", "--kill-whom=main", service.unit)

    def booting() -> Process | None:
        others = [process for process in machine.processes(service.unit) if process.pid not in before]
        return next((each for each in others if each.parent == machine.pid and each.children), None)

    new = eventually(booting, "a new master, which is nobody's child any more")
    assert new is not None
    new.kill(signal.SIGSTOP)
    machine.write("/srv/app/plain.py", PLAIN)
    began = time.monotonic()
    machine.systemctl(deed, service.unit, timeout=60)
    print(f"{deed} beside a new master that was stopped: {time.monotonic() - began:.1f} s")
    assert not new.alive
    assert not [line for line in machine.unit_messages(service.unit) if "timed out" in line]
    assert service.ask().status == 200
    service.check(workers=2)
    assert service.main != old


def test_a_reload_without_room_for_a_process_is_rolled_back(machine: Machine) -> None:
    """Seven processes: a master, four workers, one of the next generation, and sdservectl.

    The kernel counts them by user, in all machines on it, and systemd makes the user's number from its name. So the
    name is new each time: whoever runs this test beside us, or any other, has processes of other users.
    """
    limits = f"[Service]\nLimitNPROC=7\nUser=seven-{uuid.uuid4().hex[:12]}\n"
    service = deploy(machine, settings={"WORKERS": "4"}, drop_in=limits)
    service.wake()
    service.check(workers=4)
    workers = service.worker_pids()
    done = machine.systemctl("reload", service.unit, check=False)
    assert done.returncode != 0
    assert "reload failed: no room for a worker process" in service.status
    service.check(workers=4)
    assert service.worker_pids() == workers


def test_a_start_without_room_for_a_process_is_tried_again_by_itself(machine: Machine) -> None:
    """No other exit code of a start that failed means so: what else is wrong, somebody has to mend."""
    limits = f"[Service]\nUser=two-{uuid.uuid4().hex[:12]}\nLimitNPROC="
    service = deploy(machine, settings={"WORKERS": "2"}, drop_in=f"{limits}2\n")
    assert machine.systemctl("start", service.unit, check=False).returncode != 0
    assert machine.show(service.unit, "ExecMainStatus")["ExecMainStatus"] == str(NoRoomError.exit_code)
    said = "\n".join(machine.unit_messages(service.unit))
    assert "no room for a worker process: Resource temporarily unavailable; see TasksMax= and LimitNPROC=" in said
    assert "Workers keep dying" not in said, "one of them was told to leave"
    machine.drop_in(service.unit, f"{limits}infinity\n")
    machine.reload_units()
    machine.wait_for(service.unit, ActiveState="active")
    service.check(workers=2)


@pytest.mark.parametrize("reloading", [False, True], ids=["running", "reloading"])
def test_workers_that_are_all_stuck_are_noticed_as_fast_during_a_reload(machine: Machine, reloading: bool) -> None:
    files = {"app.py": PLAIN, "conf.py": ""}
    service = deploy(
        machine,
        files,
        "app:application",
        {"TIMEOUT": "0", "CONFIG": "/srv/app/conf.py"},
        "[Service]\nWatchdogSec=2\nRestart=no\n",
    )
    service.wake()
    service.check(workers=2)
    old = service.workers
    if reloading:
        machine.write("/srv/app/app.py", "import threading\nthreading.Event().wait()\n")
        machine.systemctl("reload", "--no-block", service.unit)
        eventually(lambda: len(service.workers) == 4, "a new generation boots")
    stopped = time.monotonic()
    for worker in old:
        worker.kill(signal.SIGSTOP)
    machine.wait_for(service.unit, ActiveState="failed", Result="watchdog")
    print(f"noticed after {time.monotonic() - stopped:.1f} s")


SLOW = "def on_reload(server):\n    import time\n    time.sleep(SECONDS)\n"


def test_a_long_step_of_a_reload_is_not_shot_by_the_watchdog(machine: Machine) -> None:
    files = {"plain.py": PLAIN, "conf.py": SLOW.replace("SECONDS", "5")}
    service = deploy(machine, files, settings={"CONFIG": "/srv/app/conf.py"}, drop_in="[Service]\nWatchdogSec=1\n")
    service.wake()
    main = service.main
    machine.systemctl("reload", service.unit)
    service.check(workers=2, main=main)
    assert machine.get(service.unit, "NRestarts") == "0"
    service.master.kill(signal.SIGSTOP)  # the watchdog is as sharp as before
    eventually(lambda: service.main not in (0, main), "a new master")


def test_a_step_of_a_reload_that_hangs_is_rolled_back(machine: Machine) -> None:
    files = {"plain.py": PLAIN, "conf.py": SLOW.replace("SECONDS", "3600")}
    settings = {"CONFIG": "/srv/app/conf.py", "BOOT_TIMEOUT": "2"}
    service = deploy(machine, files, settings=settings, drop_in="[Service]\nWatchdogSec=1\n")
    service.wake()
    main, workers = service.main, service.worker_pids()
    done = machine.systemctl("reload", service.unit, check=False)
    assert done.returncode != 0
    assert "did not end within 2 seconds (boot_timeout)" in service.status
    service.check(workers=2, main=main)
    assert service.worker_pids() == workers


def test_many_young_workers_that_die_together_are_replaced_together(machine: Machine) -> None:
    service = deploy(machine, settings={"WORKERS": "16"})
    service.wake()
    service.check(workers=16)
    died = time.monotonic()
    for worker in kill_all(service):
        worker.wait_gone()
    service.ask()
    print(f"16 workers killed at once: an answer after {time.monotonic() - died:.2f} s")
    service.check(workers=16)
    waits = [line for line in machine.unit_messages(service.unit) if "the next boots in" in line]
    assert not [line for line in waits if "in 0.0 s" not in line], waits


def kill_all(service: Service) -> list[Process]:
    workers = eventually(lambda: service.workers, "workers")
    for worker in workers:
        worker.kill(signal.SIGKILL)
    return workers
