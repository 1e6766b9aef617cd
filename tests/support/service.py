"""The shipped units on a machine, with an application: what a deployer does, in one call.

`deploy` writes the application to /srv/app and the settings to /etc/sdserve/sdserve.env, installs
units/sdserve.socket and units/sdserve.service as they are, and starts the socket. Nothing else is started: that is the
first request's part.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.load import Answer, Load, get
from tests.support.machine import CHECKOUT, Machine
from tests.support.processes import Process
from tests.support.waiting import eventually

PLAIN = (CHECKOUT / "tests" / "apps" / "plain.py").read_text()
ADDRESS = ("127.0.0.1", 8000)


class Service:
    """An sdserve unit on a machine: asked, looked at, commanded."""

    def __init__(self, machine: Machine, name: str = "sdserve", address: tuple[str, int] | str = ADDRESS) -> None:
        self.machine = machine
        self.unit = f"{name}.service"
        self.socket = f"{name}.socket"
        self.address = address

    # -- clients

    def connect(self) -> Any:
        return self.machine.connect(self.address)

    def ask(self, path: str = "/") -> Answer:
        """One GET on a connection of its own."""
        return get(self.connect, path)

    def wake(self) -> Answer:
        """The first request, which starts the service; returns when the start is over and all workers serve."""
        answer = self.ask()
        self.machine.wait_for(self.unit, ActiveState="active")
        return answer

    def load(self, **options: Any) -> Load:
        return Load(self.connect, **options)

    # -- state

    @property
    def main(self) -> int:
        """systemd's MainPID, a number inside the machine."""
        return self.machine.main_pid(self.unit)

    @property
    def status(self) -> str:
        return self.machine.get(self.unit, "StatusText")

    @property
    def master(self) -> Process:
        return self.machine.process(self.unit, self.main)

    @property
    def workers(self) -> list[Process]:
        """The children of the main process."""
        return self.master.children

    def worker_pids(self) -> set[int]:
        """Numbers inside the machine, as applications report them."""
        return {p.inner for p in self.workers}

    def check(self, workers: int = 2, main: int | None = None) -> None:
        """Eventually: running, the main process a child of PID 1 with all of its workers, nobody else in the unit."""

        def look() -> bool:
            state = self.machine.show(self.unit, "ActiveState", "SubState", "MainPID", "StatusText", "Result")
            assert (state["ActiveState"], state["SubState"], state["Result"]) == ("active", "running", "success"), state
            assert main in (None, int(state["MainPID"])), state
            assert f"{workers} worker" in state["StatusText"], state
            master = self.master
            assert master.parent == self.machine.pid, f"the master's parent is {master.parent}"
            members = self.machine.processes(self.unit)
            assert len(members) == 1 + workers == 1 + len(master.children), [p.title for p in members]
            return True

        try:
            eventually(look, f"{self.unit} runs with {workers} workers")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.machine.story()}") from None

    def wait_busy(self, workers: int = 2) -> None:
        """Wait until so many workers are inside a request."""

        def look() -> bool:
            status = self.ask_master("status")
            busy = [worker for worker in status["status"]["workers"] if worker["busy"] is not None]
            assert len(busy) >= workers, status
            return True

        eventually(look, f"{workers} busy workers")

    def ask_master(self, command: str) -> Any:
        """What `sdservectl` would be answered, without the time that it takes to start: requests may be short."""
        with self.machine.connect("/run/sdserve/control") as sock:
            sock.sendall(json.dumps({"command": command}).encode() + b"\n")
            with sock.makefile("rb") as answer:
                return json.loads(answer.readline())

    # -- commands

    def configure(self, settings: Mapping[str, str]) -> None:
        """Write the environment file: {"WORKERS": "2"} is SDSERVE_WORKERS=2, {"=DELAY": "1"} is DELAY=1."""
        names = {name: name[1:] if name[0] == "=" else f"SDSERVE_{name}" for name in settings}
        lines = [f'{names[name]}="{value}"\n' for name, value in settings.items()]
        self.machine.write("/etc/sdserve/sdserve.env", "".join(lines))

    def upgrade(self, timeout: float = 20.0) -> int:
        """`systemctl kill -s USR2`, to every process of the unit; return the new main process."""
        before = self.main
        self.machine.systemctl("kill", "-s", "USR2", self.unit)
        eventually(lambda: self.main not in (0, before), f"a new main process after {before}", timeout)
        return self.main


def deploy(
    machine: Machine,
    files: Mapping[str, str | Path] | None = None,
    app: str = "plain:application",
    settings: Mapping[str, str] | None = None,
    drop_in: str = "",
    socket_drop_in: str = "",
    address: str | None = None,
    start: bool = True,
) -> Service:
    """Install application, settings and units, and start the socket.

    files      path below /srv/app → text; default: tests/apps/plain.py
    address    where `socket_drop_in` has it listen, if not at ADDRESS
    settings   SDSERVE_* without the prefix; a name that starts with "=" is written without it, {"=DELAY": "0.05"}
    """
    service = Service(machine, address=address or ADDRESS)
    for name, text in (files or {"plain.py": PLAIN}).items():
        machine.write(f"/srv/app/{name}", text if isinstance(text, str) else text.read_text())
    service.configure({"WSGI_APP": app, "CHDIR": "/srv/app", "WORKERS": "2", **(settings or {})})
    for unit, addition in ((service.socket, socket_drop_in), (service.unit, drop_in)):
        machine.install(unit)
        if addition:
            machine.drop_in(unit, addition)
    machine.reload_units()
    if start:
        machine.systemctl("start", service.socket)
    return service
