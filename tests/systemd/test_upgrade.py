"""`systemctl kill -s USR2`: a new master takes over, as a child of systemd's own, and nobody else hears the signal.

UPGRADES says how many are done in a row (default 8).
"""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

from tests.support.machine import Machine
from tests.support.service import PLAIN, Service, deploy
from tests.support.waiting import eventually

UPGRADES = int(os.environ.get("UPGRADES", "8"))


def complaints(machine: Machine) -> list[str]:
    """What systemd says when it dislikes whom it has to supervise."""
    bad = ("not our child", "reception only permitted", "does not belong to service", "Killing process")
    return [line for line in machine.messages() if any(word in line for word in bad)]


def test_a_new_master_takes_over(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    main, workers = service.main, service.worker_pids()

    new = service.upgrade()

    service.check(workers=2, main=new)
    assert new != main
    assert not workers & service.worker_pids()
    assert service.ask().pid in service.worker_pids()
    assert machine.get(service.unit, "NRestarts") == "0"
    assert not complaints(machine)


def test_many_in_a_row(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    masters = [service.main]
    for _ in range(UPGRADES):
        masters.append(service.upgrade())
        service.check(workers=2, main=masters[-1])
        assert service.ask().pid in service.worker_pids()
    assert len(set(masters)) == UPGRADES + 1
    assert machine.get(service.unit, "NRestarts") == "0"
    assert not complaints(machine)

    stops_gracefully(machine, service)


def stops_gracefully(machine: Machine, service: Service) -> None:
    """A request in progress is answered, then the unit is down without a kill."""
    with service.load(clients=1, path="/sleep/1", requests=1) as load:
        service.wait_busy(1)
        machine.systemctl("stop", service.unit)
        machine.wait_for(service.unit, ActiveState="inactive", Result="success", MainPID="0")
    assert load.record.statuses == {200: 1}, load.record
    assert not complaints(machine)


def test_the_new_master_is_supervised(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    new = service.upgrade()
    service.check(workers=2, main=new)
    doomed = service.master

    doomed.kill(signal.SIGKILL)

    doomed.wait_gone()
    assert service.ask().status == 200  # its socket never closed
    machine.wait_for(service.unit, ActiveState="active", NRestarts="1")
    assert service.main not in (0, new)
    service.check(workers=2)


def test_a_new_master_that_cannot_import_the_application_is_dropped(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    main, workers = service.main, service.worker_pids()
    machine.write("/srv/app/plain.py", "import no_such_module_anywhere\n")

    machine.systemctl("kill", "-s", "USR2", service.unit)

    machine_says(machine, service, "no_such_module_anywhere")
    service.check(workers=2, main=main)
    assert service.worker_pids() == workers
    assert service.ask().pid in workers
    assert not complaints(machine)


def machine_says(machine: Machine, service: Service, word: str) -> None:
    eventually(lambda: word in service.status, f"{word} in the status")
    assert any(word in line for line in machine.unit_messages(service.unit))


def test_reload_restart_and_stop_go_to_the_new_master(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    new = service.upgrade()
    service.check(workers=2, main=new)

    machine.systemctl("reload", service.unit)
    service.check(workers=2, main=new)

    machine.systemctl("restart", service.unit)
    service.check(workers=2)
    assert service.main != new

    machine.systemctl("stop", service.unit)
    machine.wait_for(service.unit, ActiveState="inactive", Result="success")


def test_sdservectl_upgrade_waits_for_the_outcome(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    main = service.main

    machine.run("/opt/sdserve/bin/sdservectl", "upgrade")

    service.check(workers=2)
    assert service.main != main
    status = machine.run("/opt/sdserve/bin/sdservectl", "status").stdout
    assert str(service.main) in status


HELD = "import os, time\nwhile os.path.exists(f'/srv/app/hold-{os.getppid()}'):\n    time.sleep(0.01)\n" + PLAIN
"""Its workers do not come up as long as there is a file with the number of their master."""


def test_a_reload_that_an_upgrade_overtakes_is_done_by_the_new_master(machine: Machine) -> None:
    service = deploy(machine, {"plain.py": HELD})
    service.wake()
    old = service.main
    machine.write(f"/srv/app/hold-{old}", "")
    with ThreadPoolExecutor(1) as pool:
        reload = pool.submit(machine.systemctl, "reload", service.unit, check=False)
        eventually(lambda: "Reloading" in service.status, "a reload")
        new = service.upgrade()
        assert reload.result().returncode == 0, machine.story()
    service.check(workers=2, main=new)
    assert "generation 2" in service.status


def test_a_hangup_that_an_upgrade_overtakes_is_passed_on(machine: Machine) -> None:
    service = deploy(machine, {"plain.py": HELD})
    service.wake()
    old = service.main
    machine.write(f"/srv/app/hold-{old}", "")
    machine.systemctl("kill", "--kill-whom=main", "-s", "HUP", service.unit)
    eventually(lambda: "Reloading" in service.status, "a reload")
    new = service.upgrade()
    eventually(lambda: "generation 2" in service.status, "a reload by the new master")
    service.check(workers=2, main=new)


READS = """
import os, time

print("the code was read", flush=True)
while os.path.exists("/srv/app/hold") and not os.path.exists(f"/srv/app/free-{os.getppid()}"):
    time.sleep(0.01)

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"TEXT"]
"""


def test_a_reload_that_succeeds_while_the_new_master_boots_is_not_undone(machine: Machine) -> None:
    """The new master has read the code before the deploy that `systemctl reload` has brought."""
    service = deploy(machine, {"plain.py": READS.replace("TEXT", "old")})
    service.wake()
    old = service.main

    def readers() -> int:
        return machine.unit_messages(service.unit).count("the code was read")

    eventually(lambda: readers() == 2, "both workers")
    machine.write(f"/srv/app/free-{old}", "")  # it holds the new master's workers only
    machine.write("/srv/app/hold", "")
    with ThreadPoolExecutor(1) as pool:
        upgrade = pool.submit(machine.run, "/opt/sdserve/bin/sdservectl", "upgrade")
        eventually(lambda: readers() == 4, "the workers of the new master")
        machine.write("/srv/app/plain.py", READS.replace("TEXT", "new"))
        machine.systemctl("reload", service.unit)
        assert {service.ask().body for _ in range(4)} == {b"new"}
        assert service.main == old
        machine.path("/srv/app/hold").unlink()
        assert "upgraded, the new master is pid" in upgrade.result().stdout
    service.check(workers=2)
    assert service.main != old
    assert {service.ask().body for _ in range(8)} == {b"new"}
