"""What a worker holds is its own, its generation's and the service's: nothing of its master's, nothing of the past.

A descriptor too many outlives what it belongs to: the disk space of a log file that was rotated away, a connection to
sdservectl, the listener of an old configuration.
"""

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.processes import Process
from tests.support.server import Server, answer
from tests.support.waiting import eventually

STANDARD = ["/dev/null", *["pipe"] * 4]  # 0 to 2, and own copies of 1 and 2
# Wake-up pipe, lifeline, channel, and where the stacks go.
OWN = ["anon_inode:[eventpoll]", "pipe", "pipe", "pipe", "socket", "/memfd:stacks (deleted)"]
# Listener, both ends of the adoption queue, and what Python keeps of a mapping.
SERVICE = ["socket", "socket", "socket", "/memfd:sdserve-counters (deleted)"]


def held(process: Process) -> list[str]:
    """What the descriptors of a process are, without the numbers of pipes and sockets."""
    directory, links = f"/proc/{process.pid}/fd", []
    for fd in os.listdir(directory):
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(re.sub(r"^(pipe|socket):.*", r"\1", os.readlink(f"{directory}/{fd}")))
    return sorted(links)


def inheritable(process: Process) -> set[int]:
    """What a program that it executes would have."""
    flags = {
        int(path.name): re.search(r"^flags:\s*(\d+)", path.read_text(), re.MULTILINE)
        for path in Path(f"/proc/{process.pid}/fdinfo").iterdir()
    }
    return {fd for fd, found in flags.items() if found and not int(found[1], 8) & os.O_CLOEXEC}


class Service:
    """A server with log files, and a control socket on which somebody waits who has closed his half already."""

    def __init__(self, start: Callable[..., Server], directory: Path) -> None:
        self.directory = directory
        self.config = directory / "c.py"
        self.configure("first")
        self.server = start("-c", str(self.config), "plain:application")
        self.server.wait_ready()

    def configure(self, name: str, **settings: object) -> None:
        """All that a configuration opens is named `name`."""
        self.name = name
        opened = {
            "bind": f"unix:{self.directory}/{name}",
            "errorlog": f"{self.directory}/{name}.log",
            "accesslog": f"{self.directory}/{name}.access",
        }
        control = {"control_socket": f"{self.directory}/control", "upgrade": "auto", "workers": 2}
        self.config.write_text(
            "".join(f"{key} = {value!r}\n" for key, value in {**control, **opened, **settings}.items())
        )

    def reload(self) -> str:
        """By the control socket; what the master answers."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(self.directory / "control"))
            client.sendall(b'{"command": "reload"}\n')
            client.shutdown(socket.SHUT_WR)
            told = json.loads(client.makefile("rb").readline())
        return str(told["text"])

    def check(self, workers: int, master: int = 0) -> None:
        """All workers hold what they should hold, in the end: what a boot needs is closed by its end."""
        logs = [f"{self.directory}/{self.name}.log", f"{self.directory}/{self.name}.access"]
        expected = sorted([*STANDARD, *OWN, *SERVICE, *logs])

        def look() -> bool:
            for worker in self.server.wait_workers(workers, master=master):
                assert held(worker) == expected
                assert inheritable(worker) == {0, 1, 2}
            return True

        eventually(look, f"{expected}")


@pytest.fixture
def service(start: Callable[..., Server], short_path: Path) -> Service:
    return Service(start, short_path)


def test_from_the_start_on(service: Service) -> None:
    service.check(2)
    service.server.kill(signal.SIGTTIN)
    service.check(3)


def test_after_a_reload(service: Service) -> None:
    service.configure("second")
    assert service.reload().startswith("reloaded")
    service.check(2)


def test_after_a_reload_that_failed(service: Service) -> None:
    service.configure("second", raw_env=["MISSING=1"], post_fork="no.such.hook")
    service.reload()
    service.name = "first"
    service.server.kill(signal.SIGTTIN)
    service.check(3)


def test_after_an_upgrade_that_failed(service: Service) -> None:
    """Why it failed, a process is asked whose words the master hears."""
    service.configure("second", wsgi_app="no.such:application", workers="none")
    service.server.kill(signal.SIGUSR2)
    eventually(lambda: "backed out" in (service.directory / "first.log").read_text(), "the end of the upgrade")
    service.name = "first"
    service.server.kill(signal.SIGTTIN)
    service.check(3)


def test_after_an_upgrade(service: Service) -> None:
    service.server.kill(signal.SIGUSR2)
    service.server.wait()
    log = service.directory / "first.log"
    promoted = eventually(lambda: re.search(r"\[(\d+)\] \[INFO\] Master has been promoted", log.read_text()))
    new = int(promoted[1])
    service.check(2, master=new)
    service.server.kill(signal.SIGTTIN, new)
    service.check(3, master=new)
    service.configure("second")
    assert service.reload().startswith("reloaded")
    service.check(2, master=new)
    assert answer(str(service.directory / "second")).status == 200
