"""logrotate, by the rules that the page and `sdserve unit` install: every line is in a file that is rotated, once."""

import gzip
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.load import get
from tests.support.machine import CHECKOUT, Machine
from tests.support.service import PLAIN, deploy
from tests.support.waiting import eventually
from tests.support.walkthrough import steps
from tests.systemd.test_unit_command import host, installed_and_served, project

__all__ = ["host"]
RULES = "/etc/logrotate.d"


@pytest.fixture
def rules(machine: Machine) -> Iterator[Path]:
    """The directory of logrotate's rules, with those of the machine's packages out of the way."""
    if not machine.path("/usr/sbin/logrotate").exists():
        pytest.skip("logrotate is not installed")
    machine.run("mkdir", "-p", "/tmp/rules", RULES)
    machine.run("mount", "--bind", "/tmp/rules", RULES)
    yield machine.path(RULES)
    machine.run("umount", RULES)
    for place in machine.path("/var/log").glob("sdserve*"):
        place.unlink() if place.is_symlink() else shutil.rmtree(place)


class Rotated:
    """A service with an access log, asked and rotated; its application's answers are its lines."""

    def __init__(self, machine: Machine, address: tuple[str, int] | str, directory: str) -> None:
        self._machine = machine
        self._connect = partial(machine.connect, address)
        self._directory = machine.path(directory)
        self._asked = 0

    def ask(self) -> None:
        assert get(self._connect, f"/request/{self._asked}").status == 200
        self._asked += 1

    def rotate(self) -> None:
        said = self._machine.run("logrotate", "-v", "-f", "-s", "/tmp/state", RULES).stdout
        assert "error" not in said, said

    def until_written(self, name: str) -> None:
        """Asks until the service writes to this file."""

        def look() -> bool:
            self.ask()
            return f"/request/{self._asked - 1} " in self._text(name)

        eventually(look, f"a line in {name}")

    def check(self) -> None:
        """Each request is a line in one of the files, and those that are compressed can be read."""
        files = sorted(path.name for path in self._directory.iterdir())
        lines = "".join(map(self._text, files)).splitlines()
        numbers = sorted(int(line.partition("/request/")[2].split()[0]) for line in lines if "/request/" in line)
        assert numbers == list(range(self._asked)), files
        assert files == ["access.log", "access.log.1", "access.log.2.gz"]

    def _text(self, name: str) -> str:
        file = self._directory / name
        if not file.exists():
            return ""
        return gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()


def rotates(service: Rotated) -> None:
    for _ in range(2):
        service.until_written("access.log")
        service.rotate()
    service.until_written("access.log")
    service.check()


def of_the_page(machine: Machine, number: int) -> None:
    script = list(steps("docs/how-to/logs.md", "Rotation"))[number].script
    machine.run("sh", "-euc", f"cd {CHECKOUT}\n{script}")


def test_the_service_that_is_shipped(machine: Machine, rules: Path) -> None:
    service = deploy(machine, settings={"ACCESSLOG": "/var/log/sdserve/access.log", "WORKERS": "1"})
    of_the_page(machine, 0)
    service.wake()
    rotates(Rotated(machine, service.address, "/var/log/private/sdserve"))
    machine.systemctl("stop", service.socket, service.unit)
    machine.run("logrotate", "-v", "-f", "-s", "/tmp/state", RULES)  # nobody to tell is no error


def test_an_instance(machine: Machine, rules: Path) -> None:
    for unit in ("sdserve@.socket", "sdserve@.service"):
        machine.install(unit)
    machine.reload_units()
    machine.write("/srv/app/plain.py", PLAIN)
    settings = [
        "WSGI_APP=plain:application",
        "CHDIR=/srv/app",
        "ACCESSLOG=/var/log/sdserve-shop/access.log",
        "WORKERS=1",
    ]
    machine.write("/etc/sdserve/shop.env", "".join(f"SDSERVE_{each}\n" for each in settings))
    machine.systemctl("start", "sdserve@shop.socket")
    of_the_page(machine, 0)  # both rules, beside each other
    of_the_page(machine, 1)
    rotates(Rotated(machine, "/run/sdserve-shop.sock", "/var/log/private/sdserve-shop"))


def test_a_service_of_sdserve_unit(host: Machine, rules: Path) -> None:
    config = 'accesslog = "/var/log/sdserve-shop/access.log"\nworkers = 1\n'
    project(host, "/srv/shop", {"shop.py": PLAIN, "sdserve.conf.py": config})
    of_the_page(host, 0)
    address = "/run/shop.sock"
    installed_and_served(host, "/srv/shop", "shop:application", "--listen", f"unix:{address}", address=address)
    rotates(Rotated(host, address, "/var/log/private/sdserve-shop"))
