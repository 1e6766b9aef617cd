"""A real systemd to test on, booted in namespaces of its own.

`machine.sh` beside this file makes the namespaces; here is the handle that tests hold. A boot takes a quarter of a
second. The machine is a root file system, as a rule the host's own, under an overlay, with its own processes, network,
cgroups, /run, /etc/sdserve and journal, PID 1 sees no unit of the host's, and the environment under test lies at
/opt/sdserve, where the shipped units expect it.

Each pytest worker boots one and uses it for all of its tests; `reset` puts it back between two. The machine lives as
long as a pipe that only its owner holds, so that a killed pytest leaves nothing behind.
"""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO

from tests.support.load import connected
from tests.support.processes import Process, in_cgroup
from tests.support.waiting import PATIENCE, eventually, readable

CHECKOUT = Path(__file__).resolve().parents[2]
UNITS = CHECKOUT / "units"
CLONE_NEWNET = 0x40000000
BOOT_TIMEOUT = 60.0
COMMAND_TIMEOUT = 120.0
NAMESPACES = ("-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w")
"""All of the machine's namespaces, its root and its working directory, for nsenter(1)."""


class CannotBoot(Exception):
    """This host cannot run a systemd in namespaces; the message says what is missing."""


class Machine:
    """One running machine. Paths given to methods are paths inside of it."""

    def __init__(self, pid: int, lifeline: IO[bytes], holder: subprocess.Popen[bytes], cgroup: Path) -> None:
        self.pid = pid
        self.root = Path(f"/proc/{pid}/root")
        self.cgroup = cgroup
        self._lifeline = lifeline
        self._holder = holder
        self._cursor = ""
        self._installed: list[Path] = []
        self._network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        # Paths that `connect` may use have to be short (sun_path), so one descriptor stands for the root directory.
        self._root_fd = os.open(self.root, os.O_PATH | os.O_CLOEXEC)

    @classmethod
    def boot(cls, environment: Path, root: Path = Path("/")) -> "Machine":
        """Boot the systemd of the root file system `root`, with the virtual environment `environment` at /opt/sdserve.

        Raises CannotBoot where the host does not allow it, RuntimeError with the log where it should have worked.
        """
        hierarchy = _demand(root)
        name = f"sdserve-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        state = Path(tempfile.mkdtemp(prefix="sdserve-machine-"))
        state.chmod(0o755)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(state / "notify"))
            holder = subprocess.Popen(
                [Path(__file__).with_name("machine.sh"), state, name, root, environment, CHECKOUT / "sdserve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            assert holder.stdin is not None and holder.stdout is not None
            with holder.stdout as answer:
                line = answer.readline()
            if not line.strip() or not _is_ready(ready, int(line)):
                log = (state / "log").read_text(errors="replace")
                holder.stdin.close()
                holder.wait()
                raise RuntimeError(f"the machine did not boot:\n{log}")
        machine = cls(int(line), holder.stdin, holder, hierarchy / name)
        machine.reset()
        if not machine.user_namespaces:
            machine.write("/run/systemd/system/service.d/no-user-namespaces.conf", "[Service]\nPrivateUsers=no\n")
            machine.reload_units()
        return machine

    def shut_down(self) -> None:
        """End every process of the machine and remove its traces; returns when all is gone."""
        os.close(self._network)
        os.close(self._root_fd)
        self._lifeline.close()
        self._holder.wait(timeout=30)

    @cached_property
    def systemd(self) -> int:
        """The version of its systemd."""
        return int(self.systemctl("--version").stdout.split()[1])

    # -- commands and files

    def run(
        self,
        *argv: str | Path,
        check: bool = True,
        timeout: float = COMMAND_TIMEOUT,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root; `stdout` has all output. AssertionError if it fails and `check`."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), *NAMESPACES, "--", *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(map(str, argv))}: exit status {done.returncode}\n{done.stdout}\n{self.story()}"
            )
        return done

    def path(self, path: str | Path) -> Path:
        """Where the host sees the machine's `path`."""
        return self.root / str(path).lstrip("/")

    def write(self, path: str | Path, text: str, mode: int = 0o644) -> None:
        """Write a file, readable by everyone inside, and the directories above it."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def pip_install(self, wheel: Path) -> None:
        """Install a wheel into /opt/sdserve as a deployer would."""
        target = self.path("/tmp") / wheel.name
        shutil.copyfile(wheel, target)
        self.run(
            "/opt/sdserve/bin/python", "-m", "pip", "install", "-q", "--no-index", "--no-deps", f"/tmp/{wheel.name}"
        )

    @cached_property
    def user_namespaces(self) -> bool:
        """Whether the kernel allows them; where not, units run without PrivateUsers=, which fails with status 217."""
        return self.run("unshare", "--user", "true", check=False).returncode == 0

    # -- units

    def systemctl(
        self, *args: str, check: bool = True, timeout: float = COMMAND_TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """systemctl(1) inside."""
        return self.run("systemctl", *args, check=check, timeout=timeout)

    def install(self, name: str, text: str | None = None) -> None:
        """Install a unit: `text`, or the shipped file `units/<name>`. `reload_units` makes systemd read it."""
        self._put(name, (UNITS / name).read_text() if text is None else text)

    def drop_in(self, unit: str, text: str, name: str = "test.conf") -> None:
        """Install a drop-in for `unit`."""
        self._put(f"{unit}.d/{name}", text)

    def reload_units(self) -> None:
        self.systemctl("daemon-reload")

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as `systemctl show` prints them."""
        text = self.systemctl("show", unit, "-p", ",".join(properties)).stdout
        return {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}

    def get(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.show(unit, name).get(name, "")

    def wait_for(self, unit: str, timeout: float = PATIENCE, **wanted: str) -> None:
        """Wait until all of the `wanted` properties have these values."""

        def look() -> bool:
            seen = self.show(unit, *wanted)
            assert seen == wanted, f"{seen}"
            return True

        try:
            eventually(look, f"{unit} shows {wanted}", timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.story()}") from None

    def main_pid(self, unit: str) -> int:
        """The main process as systemd sees it (a number inside the machine; 0 when there is none)."""
        return int(self.get(unit, "MainPID"))

    def processes(self, unit: str) -> list[Process]:
        """All live processes of a unit."""
        group = self.get(unit, "ControlGroup")
        return in_cgroup(self.cgroup / group.lstrip("/")) if group else []

    def process(self, unit: str, inner: int) -> Process:
        """The unit's process that is number `inner` inside the machine; ProcessLookupError if there is none."""
        for process in self.processes(unit):
            if process.inner == inner:
                return process
        raise ProcessLookupError(inner)

    # -- journal

    def journal(self, *matches: str, check: bool = True) -> list[dict[str, str]]:
        """Journal entries since the last `reset`, oldest first, as `journalctl -o json` gives them."""
        self.run("journalctl", "--sync", check=check)
        since = f"--after-cursor={self._cursor}"
        lines = self.run("journalctl", "-q", "-o", "json", "--no-pager", since, *matches, check=check).stdout
        return [json.loads(line) for line in lines.splitlines() if line.startswith("{")]

    def messages(self, *matches: str) -> list[str]:
        """The text of `journal(*matches)`."""
        return [str(entry.get("MESSAGE", "")) for entry in self.journal(*matches)]

    def unit_messages(self, unit: str) -> list[str]:
        """What the unit's processes said, and what systemd said of the unit."""
        return self.messages("-u", unit)

    def story(self) -> str:
        """What happened since `reset`, for a failed assertion."""
        lines = []
        for entry in self.journal(check=False)[-120:]:
            stamp = int(entry["__REALTIME_TIMESTAMP"]) % 1_000_000_000
            lines.append(f"{stamp / 1e6:10.3f} {entry.get('_COMM')}[{entry.get('_PID')}]: {entry.get('MESSAGE')}")
        return "\n".join(lines)

    # -- network

    @contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that this thread makes inside the `with` are sockets of the machine, wherever they are used later."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self._network)
            try:
                yield
            finally:
                _setns(own)
        finally:
            os.close(own)

    def connect(self, address: tuple[str, int] | str, timeout: float = 15.0) -> socket.socket:
        """A connection to a TCP address or Unix socket of the machine."""
        if isinstance(address, str):
            sock = socket.socket(socket.AF_UNIX)
            address = f"/proc/{os.getpid()}/fd/{self._root_fd}/{address.lstrip('/')}"
        else:
            with self.network():
                sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        return connected(sock, address, timeout)

    # -- between two tests

    def reset(self) -> None:
        """Take back what a test installed, and start a new chapter of the journal."""
        units = sorted({p.name for p in self._installed if p.suffix in (".service", ".socket") and "@." not in p.name})
        units += self._instances()
        if units:
            self.systemctl("stop", "--no-block", *units, check=False)
            self.systemctl("kill", "--signal=KILL", *units, check=False)
            self.systemctl("stop", *units, check=False)
            self.systemctl("reset-failed", *units, check=False)
        for path in self._installed:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if self._installed:
            self._installed.clear()
            self.reload_units()
        for place in ("/srv", "/tmp", "/etc/sdserve"):
            for entry in self.path(place).iterdir():
                if CHECKOUT.is_relative_to(Path(place) / entry.name):
                    continue
                shutil.rmtree(
                    entry, ignore_errors=True
                ) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        # The owner of a StateDirectory= is who the next DynamicUser= becomes, whatever its name.
        for private in map(self.path, ("/var/lib/private", "/var/log/private", "/var/cache/private")):
            for entry in private.iterdir() if private.is_dir() else ():
                shutil.rmtree(entry)
                (private.parent / entry.name).unlink(missing_ok=True)
        self._cursor = self.run("journalctl", "-q", "-n0", "--show-cursor").stdout.rpartition("cursor: ")[2].strip()

    def _instances(self) -> list[str]:
        templates = {p.name.partition("@.")[0] for p in self._installed if "@." in p.name}
        found: list[str] = []
        for name in templates:
            listing = self.systemctl("list-units", "--all", "--plain", "--no-legend", f"{name}@*").stdout
            found += [line.split()[0] for line in listing.splitlines() if line.strip()]
        return found

    def _put(self, name: str, text: str) -> None:
        path = self.path("/run/systemd/system") / name
        self.write(f"/run/systemd/system/{name}", text)
        owner = path.parent if path.parent.name.endswith(".d") else path
        if owner not in self._installed:
            self._installed.append(owner)


def _demand(root: Path) -> Path:
    """Return the mount point of the cgroup2 hierarchy; CannotBoot where something is missing."""
    if os.geteuid() != 0:
        raise CannotBoot("booting a systemd in namespaces needs root")
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            raise CannotBoot(f"{tool} is not installed (Debian: util-linux, iproute2)")
    if not (root / "lib/systemd/systemd").exists():
        raise CannotBoot("systemd is not installed")
    for hierarchy in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (hierarchy / "cgroup.controllers").exists():
            if not os.access(hierarchy, os.W_OK):
                raise CannotBoot(f"{hierarchy} is read-only")
            return hierarchy
    raise CannotBoot("no cgroup2 hierarchy is mounted")


def _is_ready(ready: socket.socket, pid: int) -> bool:
    """Wait until PID 1 reports that all of its start-up jobs are done; False if it ends or takes too long."""
    deadline = time.monotonic() + BOOT_TIMEOUT
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        while (left := deadline - time.monotonic()) > 0:
            found = readable(ready, pidfd, timeout=left)
            if ready.fileno() in found and b"READY=1" in ready.recv(4096).split(b"\n"):
                return True
            if pidfd in found:
                return False
        return False
    finally:
        os.close(pidfd)


_libc = ctypes.CDLL(None, use_errno=True)


def _setns(namespace: int) -> None:
    """setns(2) for the calling thread's network."""
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
