"""A campaign against the master: while one of its system calls fails, it is told to do what operators tell it.

The promise: no client notices anything, the workers end only when the verb says so, and the master lives on, or the
new one of an upgrade in its place: when the fault is over, the same verb does what it does.
"""

import os
import signal
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from sdserve import ctl
from tests.faults.points import LEFT_OUT
from tests.faults.strace import Fault, inject, watch
from tests.faults.worker import Tally
from tests.support.load import Load
from tests.support.processes import Process
from tests.support.server import Server, children, connector, listener
from tests.support.waiting import eventually

ANSWER = 30.0  # seconds in which sdservectl is answered
SIZE = 2
CLIENTS = 4


class MasterCampaign:
    """A server of SIZE workers under a steady load, inside a `with`."""

    def __init__(self) -> None:
        self._listener = listener()
        self._directory = tempfile.TemporaryDirectory()
        self._socket = str(Path(self._directory.name) / "control")
        self._pidfile = self._socket + ".pid"
        self._log = str(Path(self._directory.name) / "log")
        Path(self._directory.name, "conf.py").write_text(f"workers = {SIZE}\nerrorlog = {self._log!r}\n")
        self._server = Server(
            *("-c", str(Path(self._directory.name, "conf.py")), "--control-socket", self._socket, "-p", self._pidfile),
            *("--graceful-timeout", "3", "--boot-timeout", "10", "plain:application"),
            sockets=[(self._listener, "http")],
        )
        self._load = Load(connector(self._listener.getsockname()), clients=CLIENTS, think=0.01)
        self.tally = Tally()
        self._kills = 0
        self._pid = self._server.pid  # of the master that serves

    def __enter__(self) -> "MasterCampaign":
        self._server.wait_ready()
        self._server.wait_workers(SIZE)
        self._load.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._load.stop()
        self._server.__exit__(None, None, None)
        self._listener.close()
        self._directory.cleanup()

    # --- what operators do: each says whether it was done -------------------------------------------------------------

    def _status(self) -> bool:
        return self._asked("status")

    def _reload(self) -> bool:
        return self._asked("reload")

    def _asked(self, command: str) -> bool:
        try:
            return bool(ctl.ask(self._socket, command, ANSWER).get("ok"))
        except OSError:
            return False

    def _ttin_ttou(self) -> bool:
        os.kill(self._pid, signal.SIGTTIN)
        grown = self._workers(SIZE + 1)
        os.kill(self._pid, signal.SIGTTOU)
        return self._workers(SIZE) and grown

    def _crash(self) -> bool:
        victim = self._alive()[0]
        victim.kill()
        victim.wait_gone()
        self._kills += 1
        return self._workers(SIZE, victim.pid)

    def _reopen(self) -> bool:
        Path(self._log).unlink(missing_ok=True)
        os.kill(self._pid, signal.SIGUSR1)
        return self._asked("status")

    def _upgrade(self) -> bool:
        """Whoever is left when it is over is the master: the new one, or the old one that has backed out."""
        before, told = self._pid, self._asked("upgrade")

        def look() -> bool:
            masters = [each.pid for each in self._server.session if each.title.startswith("sdserve: master")]
            assert len(masters) == 1, f"masters: {masters}"
            [self._pid] = masters
            named = Path(self._pidfile)
            return named.exists() and named.read_text() == f"{self._pid}\n"

        eventually(look, "one master, whom the pidfile names", 30)
        return told and self._pid != before and self._workers(SIZE)

    def _alive(self) -> list[Process]:
        return [each for each in children(self._pid) if each.alive]

    def _workers(self, count: int, gone: int = 0) -> bool:
        def look() -> bool:
            pids = {process.pid for process in self._alive()}
            return len(pids) == count and gone not in pids

        try:
            return eventually(look, f"{count} workers", 12)
        except AssertionError:
            return False

    VERBS: ClassVar[dict[str, Callable[["MasterCampaign"], bool]]] = {
        "status": _status,
        "reload": _reload,
        "more and fewer workers": _ttin_ttou,
        "a worker is killed": _crash,
        "logs are reopened": _reopen,
        "upgrade": _upgrade,
    }

    def do(self, verb: str) -> bool:
        """Does it; false if that did not work."""
        return self.VERBS[verb](self)

    # --- the campaign -------------------------------------------------------------------------------------------------

    def calls(self, verb: str) -> dict[str, int]:
        """Every system call that can fail of the master while it does `verb`, and how often it makes it."""
        with watch(self._pid, follow=False) as tracer:
            assert self.do(verb), f"{verb} does not work without any fault\n{self._server.log[-3000:]}"
        calls = {call: times for call, times in tracer.calls.items() if call not in LEFT_OUT}
        assert calls, f"{verb}: strace has seen nothing of it"
        return calls

    def run(self, verb: str, faults: Iterable[Fault]) -> Tally:
        for fault in faults:
            before = len(self.tally.broken)
            self._one(verb, fault)
            for line in self.tally.broken[before:]:
                print(line, flush=True)
        return self.tally

    def _one(self, verb: str, fault: Fault) -> None:
        tally = self.tally
        mark = self._server.mark
        with inject(self._pid, fault, follow=False) as tracer:
            self.do(verb)
        tally.runs += 1
        tally.injected += len(tracer.injected)
        problems = []
        if self._pid not in [each.pid for each in self._server.session]:
            raise AssertionError(f"{verb}, {fault}: the master ended\n{self._server.log[-5000:]}")
        if not self._workers(SIZE):
            problems.append(f"{len(self._alive())} workers")
        if not self.do(verb):
            problems.append("afterwards it does not do it either")
        record = self._load.record
        if len(record.lost) > self._kills * CLIENTS:  # of a worker that is killed, the requests in it are lost
            problems.append(f"clients noticed: {record.lost}")
        record.failures.clear()
        record.stale.clear()
        self._kills = 0
        tally.requests = len(record.answers)
        if problems:
            log = self._server.log[mark:]
            tally.broken.append(f"{verb}, {fault}: {'; '.join(problems)}\n{tracer.injected[:3]}\n{log[-3000:]}")
