"""One directory for each release, its own virtual environment in it, and a link that says which one is meant.

The service is started by the console script that pip wrote, through the link. An upgrade after the link was turned runs
the new release, interpreter, packages and application, and needs nothing of the old one, which is gone by then.

RELEASES says how many follow the first (default 3).
"""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.machine import CHECKOUT, Machine
from tests.support.service import Service, deploy
from tests.support.wheels import wheel_of

pytestmark = pytest.mark.once

APP = """
import os, sys
import sdserve

def application(environ, start_response):
    body = " ".join([sys.prefix, sdserve.__file__, sdserve.__version__, __file__]).encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-Pid", str(os.getpid()))])
    return [body]
"""
UNIT = """[Service]
ExecStart=
ExecStart=/srv/releases/current/venv/bin/sdserve
ExecReload=
ExecReload=/srv/releases/current/venv/bin/sdservectl reload
[Unit]
StartLimitIntervalSec=0
"""
SCRIPTS = {"sdserve": "sdserve.cli:main", "sdservectl": "sdserve.ctl:main"}
RELEASES = int(os.environ.get("RELEASES", "3"))


def release(machine: Machine, directory: Path, number: int) -> None:
    """Makes /srv/releases/`number`: application, environment, and sdserve by pip; its requirements are shared."""
    here = f"/srv/releases/{number}"
    machine.write(f"{here}/app/app.py", APP)
    machine.run("/usr/bin/python3", "-m", "venv", "--without-pip", f"{here}/venv")
    python = f"{here}/venv/bin/python"
    site = machine.run(python, "-c", "import site; print(site.getsitepackages()[0])").stdout.strip()
    machine.write(f"{site}/shared.pth", shared(machine))
    wheel = wheel_of(directory, CHECKOUT / "sdserve", f"{number}.0.0", SCRIPTS)
    shutil.copyfile(wheel, machine.path("/tmp") / wheel.name)
    pip = ("/opt/sdserve/bin/python", "-m", "pip", "--python", python)
    machine.run(*pip, "install", "-q", "--no-index", "--no-deps", "--no-compile", f"/tmp/{wheel.name}")
    first, _, _ = machine.path(f"{here}/venv/bin/sdserve").read_text().partition("\n")
    assert first == f"#!{python}"


def shared(machine: Machine) -> str:
    """Where the requirements are: those of the environment of the tests, and of its system if need be."""
    listed = "import sys; print(*(path for path in sys.path if path.endswith('-packages')), sep='\\n')"
    return machine.run("/opt/sdserve/bin/python", "-c", listed).stdout


def turn(machine: Machine, number: int) -> None:
    machine.run("ln", "-sfn", str(number), "/srv/releases/next")
    machine.run("mv", "-T", "/srv/releases/next", "/srv/releases/current")


def serves(service: Service, number: int) -> None:
    prefix, package, version, _ = service.ask().body.decode().split()
    assert prefix == f"/srv/releases/{number}/venv"
    assert package.startswith(prefix)
    assert version == f"{number}.0.0"


def test_releases_each_pruned_before_the_upgrade_to_the_next(machine: Machine, tmp_path: Path) -> None:
    release(machine, tmp_path, 0)
    turn(machine, 0)
    settings = {"CHDIR": "/srv/releases/current/app"}
    service = deploy(machine, {}, "app:application", settings=settings, drop_in=UNIT)
    service.wake()
    serves(service, 0)
    for number in range(1, RELEASES + 1):
        release(machine, tmp_path, number)
    with service.load(clients=4) as load:
        for number in range(1, RELEASES + 1):
            load.wait_answers(20)
            turn(machine, number)
            machine.run("rm", "-r", f"/srv/releases/{number - 1}")
            new = service.upgrade()
            serves(service, number)
            service.check(workers=2, main=new)
            machine.systemctl("reload", service.unit)
            service.check(workers=2, main=new)
    assert not load.record.failures, load.record
    assert set(load.record.statuses) == {200}
    assert machine.get(service.unit, "NRestarts") == "0"


def test_a_release_whose_interpreter_is_missing_is_backed_out(machine: Machine, tmp_path: Path) -> None:
    release(machine, tmp_path, 0)
    turn(machine, 0)
    settings = {"CHDIR": "/srv/releases/current/app"}
    service = deploy(machine, {}, "app:application", settings=settings, drop_in=UNIT)
    service.wake()
    main = service.main
    release(machine, tmp_path, 1)
    machine.path("/srv/releases/1/venv/bin/python").unlink()
    turn(machine, 1)

    done = machine.run("/opt/sdserve/bin/sdservectl", "upgrade", check=False)

    assert done.returncode == 1
    assert (
        "/srv/releases/current/venv/bin/sdserve: the interpreter that its first line names is not there" in done.stdout
    )
    service.check(workers=2, main=main)
