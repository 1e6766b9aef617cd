"""An upgrade into another virtual environment, with another sdserve and another interpreter, behind a link.

And back out of it: what is broken in the new environment is told in one line, and the old one serves on.
"""

import re
from pathlib import Path

import pytest

from tests.support.machine import Machine
from tests.support.service import Service, deploy

pytestmark = pytest.mark.once

APP = """
import os, sys
import sdserve

def application(environ, start_response):
    body = " ".join([sys.prefix, os.path.realpath(sys.executable), sdserve.__version__]).encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-Pid", str(os.getpid()))])
    return [body]
"""
UNIT = """[Service]
ExecStart=
ExecStart=/srv/current/bin/python -m sdserve
ExecReload=
ExecReload=/srv/current/bin/python -m sdserve.ctl reload
[Unit]
StartLimitIntervalSec=0
"""


def environment(machine: Machine, name: str, interpreter: str, version: str) -> None:
    """Makes the virtual environment /srv/`name`: its own interpreter, and an sdserve that calls itself `version`.

    What sdserve requires comes from /opt/sdserve.
    """
    machine.run(interpreter, "-m", "venv", "--without-pip", "--system-site-packages", f"/srv/{name}")
    site = machine.run(f"/srv/{name}/bin/python", "-c", "import site; print(site.getsitepackages()[0])").stdout.strip()
    shared = machine.run("/opt/sdserve/bin/python", "-c", "import site; print(site.getsitepackages()[0])").stdout
    machine.run("cp", "-r", f"{shared.strip()}/sdserve", f"{site}/sdserve")
    machine.write(f"{site}/shared.pth", shared)
    source = machine.path(f"{site}/sdserve/__init__.py").read_text()
    machine.write(f"{site}/sdserve/__init__.py", re.sub('(?<=__version__ = ").*(?=")', version, source))


def turn(machine: Machine, name: str) -> None:
    """The link /srv/current points to the environment `name`, from one moment to the next."""
    machine.run("ln", "-sfn", f"/srv/{name}", "/srv/next")
    machine.run("mv", "-T", "/srv/next", "/srv/current")


@pytest.fixture
def service(machine: Machine) -> Service:
    """Served from the environment /srv/one."""
    environment(machine, "one", "/usr/bin/python3", "1.0.1")
    turn(machine, "one")
    service = deploy(machine, {"app.py": APP}, "app:application", drop_in=UNIT)
    assert service.wake().body.decode().split()[::2] == ["/srv/current", "1.0.1"]
    service.check(workers=2)
    return service


def test_interpreter_environment_and_sdserve_are_replaced_under_load(machine: Machine, service: Service) -> None:
    machine.run("sh", "-c", 'cp "$(readlink -f /usr/bin/python3)" /srv/python-other')
    environment(machine, "two", "/srv/python-other", "2.0.0")
    with service.load(clients=8) as load:
        load.wait_answers(50)
        for name, version, interpreter in (("two", "2.0.0", "python-other"), ("one", "1.0.1", "python3")) * 2:
            turn(machine, name)
            new = service.upgrade()
            load.wait_answers(50)
            _, executable, answered = service.ask().body.decode().split()
            assert answered == version
            assert interpreter in executable
            service.check(workers=2, main=new)
    assert not load.record.failures, load.record
    assert not load.record.stale, load.record
    assert set(load.record.statuses) == {200}
    status = machine.run("/srv/current/bin/python", "-m", "sdserve.ctl", "status").stdout
    assert str(service.main) in status


def no_interpreter(machine: Machine) -> None:
    machine.path("/srv/two/bin/python").unlink()


def not_executable(machine: Machine) -> None:
    machine.path("/srv/two/bin/python").unlink()
    machine.write("/srv/two/bin/python", "", mode=0o644)


def no_sdserve(machine: Machine) -> None:
    package(machine).joinpath("cli.py").unlink()


def syntax_error(machine: Machine) -> None:
    package(machine).joinpath("cli.py").write_text("def main(:\n")


def no_requirement(machine: Machine) -> None:
    package(machine).joinpath("cli.py").write_text("import requirement_that_is_missing\n")


def package(machine: Machine) -> Path:
    return next(machine.path("/srv/two/lib").glob("python3*/site-packages/sdserve"))


BROKEN = {
    "no interpreter": (no_interpreter, "cannot execute /srv/current/bin/python: No such file"),
    "not executable": (not_executable, "cannot execute /srv/current/bin/python: Permission denied"),
    "no sdserve": (no_sdserve, "cannot import sdserve: ModuleNotFoundError: No module named 'sdserve.cli'"),
    "syntax error": (syntax_error, "cannot import sdserve: SyntaxError"),
    "no requirement": (no_requirement, "No module named 'requirement_that_is_missing'"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_environment_is_backed_out(machine: Machine, service: Service, what: str) -> None:
    spoil, reason = BROKEN[what]
    environment(machine, "two", "/usr/bin/python3", "2.0.0")
    spoil(machine)
    main, workers = service.main, service.worker_pids()
    turn(machine, "two")

    with service.load(clients=4) as load:
        load.wait_answers(20)
        done = machine.run("/opt/sdserve/bin/sdservectl", "upgrade", check=False)
        load.wait_answers(20)

    assert done.returncode == 1
    assert reason in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not load.record.failures, load.record
    assert reason in service.status
    assert any("backed out" in line and reason in line for line in machine.unit_messages(service.unit))
    service.check(workers=2, main=main)
    assert service.worker_pids() == workers

    turn(machine, "one")
    service.upgrade()
    assert service.ask().body.endswith(b"1.0.1")
