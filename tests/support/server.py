"""sdserve as a plain process: started, heard, signalled and waited for, without systemd.

A `Server` has what a service manager would give it: a notify socket that records, inherited listeners if asked for, and
an owner that never leaves it behind.
"""

import codecs
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.load import Answer, Connect, connected, get
from tests.support.notify import NotifySocket
from tests.support.processes import Process
from tests.support.waiting import PATIENCE, eventually, readable

CHECKOUT = Path(__file__).resolve().parents[2]
APPS = CHECKOUT / "tests" / "apps"
HANDED_ON = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}


class Server:
    """One run of `python -m sdserve ARGS`.

    sockets   listening sockets to hand over as systemd does, with their names: [(sock, "http"), …]
    cwd       the directory with the application (default: tests/apps)
    env       added to the environment; sdserve's own and systemd's variables of the tests' environment are taken out
    notify    False: no NOTIFY_SOCKET
    program   what is executed with ARGS; a wrapper ends with PROGRAM
    """

    PROGRAM = (sys.executable, "-m", "sdserve")

    def __init__(
        self,
        *args: str,
        sockets: Sequence[tuple[socket.socket, str]] = (),
        cwd: Path = APPS,
        env: Mapping[str, str] | None = None,
        notify: bool = True,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.notify = NotifySocket()
        environ = {k: v for k, v in os.environ.items() if k not in HANDED_ON and not k.startswith("SDSERVE_")}
        environ["PYTHONDONTWRITEBYTECODE"] = "1"  # code that a test changes within a second must be read again
        environ["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), *filter(None, [environ.get("PYTHONPATH")])])
        if notify:
            environ["NOTIFY_SOCKET"] = self.notify.address
        environ |= {"PYTHONUNBUFFERED": "1", **(env or {})}
        argv = [*program, *args]
        high = [fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 100) for sock, _ in sockets]
        if sockets:
            environ |= {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(name for _, name in sockets)}
            # LISTEN_PID must name the process that is to listen: a shell knows its number and becomes the server.
            moves = " ".join(f"{3 + i}<&{fd} {fd}<&-" for i, fd in enumerate(high))
            argv = ["bash", "-c", f'exec {moves}; LISTEN_PID=$$ exec "$@"', "bash", *argv]
        self._popen = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environ,
            pass_fds=high,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        for fd in high:
            os.close(fd)
        self.pid = self._popen.pid
        self._text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._news = threading.Condition()
        self._session = self.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all that is left of the session: the server, its workers, and masters of an upgrade."""
        for process in self.session:
            try:
                process.kill(signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._popen.wait()
        self._reader.join(timeout=15)
        self.notify.close()

    # -- what it says

    @property
    def log(self) -> str:
        """All output so far; nothing is left in the pipe."""
        with self._news:
            self._take()
            return self._text

    @property
    def mark(self) -> int:
        """A place in the log, for `wait_log(…, since=mark)`."""
        return len(self.log)

    def wait_log(self, pattern: str, since: int = 0, timeout: float = PATIENCE) -> re.Match[str]:
        """Wait until the log matches the regular expression (multi-line, from place `since` on)."""

        def match() -> re.Match[str] | None:
            return re.search(pattern, self._text[since:], re.MULTILINE)

        with self._news:
            self._news.wait_for(match, timeout)
            found = match()
        assert found, f"no {pattern!r} within {timeout:g} s in the log:\n{self.log}"
        return found

    def wait_ready(self, timeout: float = PATIENCE) -> "Server":
        """Wait for READY=1, or fail with the log as soon as the server has ended."""
        try:
            eventually(
                lambda: self._popen.poll() is not None or self.notify.wait("READY=1", timeout=0.1), timeout=timeout
            )
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.log}") from None
        assert self._popen.poll() is None, f"ended with {self._popen.returncode} before it was ready:\n{self.log}"
        return self

    def status(self) -> str:
        """The last STATUS= that was sent."""
        return next((m.fields["STATUS"] for m in reversed(self.notify.messages) if "STATUS" in m), "")

    # -- what it does

    def kill(self, number: signal.Signals, pid: int = 0) -> None:
        """Send a signal to the first master, or to `pid`."""
        os.kill(pid or self.pid, number)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the end of the first master; return its exit status."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s; log:\n{self.log}") from None

    @property
    def master(self) -> Process:
        return Process.of(self.pid)

    @property
    def workers(self) -> list[Process]:
        """The live children of the first master, oldest first."""
        return [p for p in children(self.pid) if p.alive]

    def wait_workers(
        self, count: int, besides: Sequence[int] = (), master: int = 0, timeout: float = PATIENCE
    ) -> list[Process]:
        """Wait until the master (or `master`) has exactly `count` children, none of the pids `besides` among them."""

        def look() -> list[Process]:
            found = [p for p in children(master or self.pid) if p.alive]
            assert len(found) == count, f"{len(found)} workers"
            assert not {p.pid for p in found} & set(besides), "old workers"
            return found or [Process(0, 0)]

        try:
            found = eventually(look, f"{count} workers", timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.log}") from None
        return found if count else []

    @property
    def session(self) -> list[Process]:
        """Every live process of the server's session, whoever its parent is by now."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.getsid(int(entry.name)) == self._session and (process := Process.of(int(entry.name))).alive:
                        found.append(process)
                except ProcessLookupError:
                    continue
        return sorted(found, key=lambda p: p.pid)

    def _read(self) -> None:
        assert self._popen.stdout is not None
        os.set_blocking(self._popen.stdout.fileno(), False)
        with self._popen.stdout as pipe:
            while not pipe.closed:
                readable(pipe)
                with self._news:
                    self._take()

    def _take(self) -> None:
        """Hear what has come, whoever asks first: the thread, or a test that looks. The lock is held."""
        pipe = self._popen.stdout
        assert pipe is not None
        while not pipe.closed and (data := pipe.read(65536)) is not None:
            if not data:
                pipe.close()
            self._text += self._decoder.decode(data, final=not data)
            self._news.notify_all()


def children(pid: int) -> list[Process]:
    """Children of a process; none if it is gone."""
    try:
        return Process.of(pid).children
    except ProcessLookupError:
        return []


def listener(address: tuple[str, int] | str = ("127.0.0.1", 0), backlog: int = 128) -> socket.socket:
    """A listening socket as a socket unit makes it: on a free TCP port, or at a path."""
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.bind(address)
    sock.listen(backlog)
    return sock


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on; held by nobody, so ask late."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def connector(address: tuple[str, int] | str, timeout: float = 20.0) -> Connect:
    """A function that connects to a TCP address or a Unix socket."""

    def connect() -> socket.socket:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        return connected(socket.socket(family), address, timeout)

    return connect


def answer(address: tuple[str, int] | str, path: str = "/") -> Answer:
    """One GET on a connection of its own."""
    return get(connector(address), path)
