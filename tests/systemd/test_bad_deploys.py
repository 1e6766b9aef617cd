"""Twenty bad deploys under load, five kinds by two ways: nobody notices but the operator, who is told why."""

import pytest

from tests.support.machine import Machine
from tests.support.mix import Mix
from tests.support.service import PLAIN, Service, deploy
from tests.support.waiting import eventually

CONFIG = "timeout = 20\n"
BAD = {
    "syntax error": ({"plain.py": "def broken(:\n"}, "plain.py"),
    "missing import": ({"plain.py": "import requirement_x\n" + PLAIN}, "requirement_x"),
    "crash at boot": ({"plain.py": "import os\nos._exit(77)\n"}, "77"),
    "hang at boot": ({"plain.py": "import threading\nthreading.Event().wait()\n"}, "boot_timeout"),
    "bad configuration": ({"conf.py": "timeuot = 20\n"}, "timeuot"),
}
"""By kind: the files of the deploy, and a word of the reason."""
WHEREVER = "missing import", "hang at boot"  # what systemd has to do with them is the same for the others


def by_reload(service: Service, word: str) -> None:
    done = service.machine.systemctl("reload", service.unit, check=False)
    assert done.returncode != 0
    assert f"{service.unit} failed" in done.stdout, done.stdout
    assert any("sdservectl" in line and word in line for line in service.machine.unit_messages(service.unit))


def by_upgrade(service: Service, word: str) -> None:
    done = service.machine.run("/opt/sdserve/bin/sdservectl", "upgrade", check=False)
    assert done.returncode != 0
    assert word in done.stdout, done.stdout


def by_signal(service: Service, word: str) -> None:
    service.machine.systemctl("kill", "-s", "USR2", service.unit)
    eventually(lambda: word in service.status, f"{word} in the status", 30)


WAYS = {"reload": (by_reload, by_reload), "upgrade": (by_upgrade, by_signal)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "kind", [pytest.param(each, marks=() if each in WHEREVER else pytest.mark.once) for each in BAD]
)
def test_the_old_code_serves_on(machine: Machine, kind: str, way: str) -> None:
    files, word = BAD[kind]
    settings = {"CONFIG": "/srv/app/conf.py", "THREADS": "32", "BOOT_TIMEOUT": "1.5"}
    service = deploy(machine, {"plain.py": PLAIN, "conf.py": CONFIG}, settings=settings)
    service.wake()
    service.check(workers=2)
    main, workers = service.main, service.worker_pids()
    with Mix(service.connect) as mix:
        mix.wait_answers()
        for name, text in files.items():
            machine.write(f"/srv/app/{name}", text)
        for attempt in WAYS[way]:
            with mix.diary.entry(kind):
                attempt(service, word)
            assert word in service.status, service.status
            service.check(workers=2, main=main)
            shown = machine.systemctl("status", "--no-pager", service.unit).stdout
            assert any("Status:" in line and word in line for line in shown.splitlines()), shown
        mix.wait_answers()
    mix.check()
    assert service.worker_pids() == workers == set(mix.record.pids)

    for name, text in {"plain.py": PLAIN, "conf.py": CONFIG}.items():
        machine.write(f"/srv/app/{name}", text)
    machine.systemctl("reload", service.unit)
    assert word not in service.status
    service.check(workers=2, main=main)
    assert not workers & service.worker_pids()


def test_a_directory_that_the_service_may_not_enter_any_more(machine: Machine) -> None:
    """The next reload says so in one line, and the old code serves on; so does the first one once it may again."""
    service = deploy(machine)
    service.wake()
    service.check(workers=2)
    machine.path("/srv/app").chmod(0o700)
    try:
        by_reload(service, "the working directory '/srv/app' cannot be entered: Permission denied")
        assert not any("Traceback" in line for line in machine.unit_messages(service.unit))
        assert service.ask().status == 200
    finally:
        machine.path("/srv/app").chmod(0o755)
    machine.systemctl("reload", service.unit)
    service.check(workers=2)
