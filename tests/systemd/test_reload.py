"""`systemctl reload`: new workers and new code under the same master, or the old ones still, with the reason."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.machine import Machine
from tests.support.service import PLAIN, deploy
from tests.support.waiting import eventually

APP = """
import os

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "3"), ("X-Pid", str(os.getpid()))])
    return [b"{text}"]
"""


def app(text: str) -> str:
    return APP.replace("{text}", text)


def test_returns_when_the_new_code_serves(machine: Machine) -> None:
    service = deploy(machine, {"one.py": app("old")}, "one:application")
    assert service.wake().body == b"old"
    main, workers = service.main, service.worker_pids()
    machine.write("/srv/app/one.py", app("new"))

    machine.systemctl("reload", service.unit)

    # The very next requests, to whichever worker, get the new code.
    assert [service.ask().body for _ in range(8)] == [b"new"] * 8
    service.check(workers=2, main=main)
    assert not workers & service.worker_pids()


def test_reads_the_settings_of_the_config_file_again(machine: Machine) -> None:
    service = deploy(machine, settings={"CONFIG": "/srv/app/conf.py"}, start=False)
    service.configure({"WSGI_APP": "plain:application", "CHDIR": "/srv/app", "CONFIG": "/srv/app/conf.py"})
    machine.write("/srv/app/conf.py", "workers = 1\n")
    machine.systemctl("start", service.unit)
    service.check(workers=1)
    main = service.main
    machine.write("/srv/app/conf.py", "workers = 3\nraw_env = ['COLOUR=green']\n")

    machine.systemctl("reload", service.unit)

    service.check(workers=3, main=main)
    assert service.ask("/environ/COLOUR").body == b"green"


def test_code_that_cannot_be_imported_is_rolled_back(machine: Machine) -> None:
    service = deploy(machine, {"one.py": app("old")}, "one:application")
    service.wake()
    main, workers = service.main, service.worker_pids()
    machine.write("/srv/app/one.py", "def broken(:\n")

    reload = machine.systemctl("reload", service.unit, check=False)

    assert reload.returncode != 0
    assert service.ask().body == b"old"
    service.check(workers=2, main=main)
    assert service.worker_pids() == workers
    assert "one.py" in service.status
    assert any("sdservectl" in line and "one.py" in line for line in service.machine.unit_messages(service.unit))

    machine.write("/srv/app/one.py", f"raise RuntimeError('no secret in {'x' * 5000}')\n")  # longer than a notification
    assert machine.systemctl("reload", service.unit, check=False).returncode != 0
    service.check(workers=2, main=main)
    assert "no secret in x" in service.status

    machine.write("/srv/app/one.py", app("new"))
    machine.systemctl("reload", service.unit)
    assert service.ask().body == b"new"
    assert "one.py" not in service.status


def test_a_setting_that_does_not_exist_is_rolled_back(machine: Machine) -> None:
    service = deploy(machine, settings={"CONFIG": "/srv/app/conf.py"}, start=False)
    machine.write("/srv/app/conf.py", "timeout = 20\n")
    machine.systemctl("start", service.unit)
    main, workers = service.main, service.worker_pids()
    machine.write("/srv/app/conf.py", "timeuot = 20\n")

    assert machine.systemctl("reload", service.unit, check=False).returncode != 0

    service.check(workers=2, main=main)
    assert service.worker_pids() == workers
    assert "timeuot" in service.status


def test_hup_by_kill_is_a_reload_too(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    main, workers = service.main, service.worker_pids()

    machine.systemctl("kill", "-s", "HUP", "--kill-whom=main", service.unit)

    eventually(lambda: not workers & service.worker_pids(), "new workers")
    service.check(workers=2, main=main)


@pytest.mark.parametrize("name", ["HUP", "USR1", "USR2", "TTIN", "TTOU", "RTMIN+1", "RTMIN+2", "RTMIN+3"])
def test_signals_for_others_do_not_disturb_who_waits_for_a_reload(machine: Machine, name: str) -> None:
    """`systemctl kill` sends them to each process of the unit, and one of those is sdservectl."""
    app = "import os, time\nwhile os.path.exists('/srv/app/hold'):\n    time.sleep(0.01)\n" + PLAIN
    service = deploy(machine, {"plain.py": app}, settings={"WORKERS": "3"})
    service.wake()
    machine.write("/srv/app/hold", "")
    with ThreadPoolExecutor(1) as pool:
        reload = pool.submit(machine.systemctl, "reload", service.unit, check=False)
        eventually(lambda: "Reloading" in service.status, "a reload")
        machine.systemctl("kill", "-s", name, service.unit)
        machine.path("/srv/app/hold").unlink()
        assert reload.result().returncode == 0, machine.story()
    eventually(lambda: service.status.startswith("Running"), "a service that runs on", 30)
    assert machine.get(service.unit, "NRestarts") == "0"


def test_works_where_the_file_of_the_control_socket_was_removed(machine: Machine) -> None:
    service = deploy(machine, {"one.py": app("old")}, "one:application")
    service.wake()
    service.check(workers=2)
    control = machine.path("/run/sdserve/control")
    control.unlink()
    machine.write("/srv/app/one.py", app("new"))
    machine.systemctl("reload", service.unit)
    assert service.ask().body == b"new"
    assert service.ask_master("status")["ok"]
    control.unlink()
    machine.write("/srv/app/one.py", "def broken(:\n")
    assert machine.systemctl("reload", service.unit, check=False).returncode != 0
    assert any("sdservectl" in line and "one.py" in line for line in machine.unit_messages(service.unit))
    assert service.ask_master("status")["ok"]
