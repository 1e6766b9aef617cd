"""A campaign against a worker: while one of its system calls fails, clients of all kinds are served.

The promise: whoever is not concerned gets the right answer, whoever is gets an error or an end, within PATIENCE; never
more of them than calls that failed. The worker lives on, or is replaced in order, and serves everybody as soon as the
fault is over; then nothing is left of it: no descriptor, no thread, no iterable that was not closed.
"""

import os
import socket
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.clients import KINDS, Client, Outcome, meet
from tests.faults.points import FILE_CALLS, LEFT_OUT
from tests.faults.strace import Fault, Tracer, inject, watch
from tests.support.processes import Process
from tests.support.server import Server, connector, listener
from tests.support.waiting import eventually

SEGMENT = 1460  # bytes
IDLE = 2  # clients that are idle when the fault begins
FULL = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")
GONE = ("RemoteDisconnected", "ConnectionResetError", "BrokenPipeError")
QUICK = {kind: KINDS[kind] for kind in ("new", "kept", "big post")}


@dataclass
class Tally:
    """What a campaign did and saw."""

    runs: int = 0
    injected: int = 0
    requests: int = 0
    replaced: int = 0  # workers that asked for it
    refused: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.injected} calls failed, {self.requests} clients checked, "
            f"{sum(self.refused.values())} of them concerned, {self.replaced} workers replaced in order, "
            f"{len(self.broken)} promises broken"
        )


class WorkerCampaign:
    """A server with one worker of `threads` threads, inside a `with`."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._listener = listener()
        # As on a network. With the loopback's 64 KiB for a segment, a client with a small window waits for timers.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        self._connect = connector(self._listener.getsockname())
        self._directory = tempfile.TemporaryDirectory()
        self._server = Server(
            *("-w", "1", "--threads", str(threads), "--timeout", "15", "--keep-alive", "60"),
            *("--access-logfile", str(Path(self._directory.name) / "access"), "kinds:application"),
            sockets=[(self._listener, "http")],
        )
        self._worker = Process(0, 0)
        self._most = 0  # descriptors
        self.tally = Tally()

    def __enter__(self) -> "WorkerCampaign":
        self._server.wait_ready()
        self._meet_worker()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.__exit__(None, None, None)
        self._listener.close()
        self._directory.cleanup()

    def _meet_worker(self) -> None:
        """A worker that has not been looked at yet."""
        [self._worker] = self._server.wait_workers(1, [self._worker.pid])
        meet(self._connect, [])
        self._most = min(self._asked()[0] for _ in range(5))

    def calls(self) -> list[str]:
        """Every system call that the worker makes for clients of all kinds, and that can fail."""
        with watch(self._worker.pid) as tracer:
            meet(self._connect, [])
        return sorted(set(tracer.calls) - LEFT_OUT)

    def run(self, faults: Iterable[Fault]) -> Tally:
        """One run for each fault; goes on after a broken promise, with a new worker if need be."""
        for fault in faults:
            before = len(self.tally.broken)
            self._one(fault)
            for line in self.tally.broken[before:]:
                print(line, flush=True)
        return self.tally

    def _one(self, fault: Fault) -> None:
        mark = self._server.mark
        idle = [Client(self._connect) for _ in range(IDLE)]
        for client in idle:
            client.ask()
        with self._inject(fault) as tracer:
            outcomes = meet(self._connect, idle)
        self._count(fault, outcomes, tracer)
        self._see_who_serves(fault, mark)
        after = meet(self._connect, [], QUICK)
        self.tally.requests += len(after)
        for outcome in after:
            if outcome.status != 200:
                self._breaks(fault, mark, f"after it, {outcome}")
        if left := self._left():
            self._breaks(fault, mark, f"after it there is left: {left}")

    def _inject(self, fault: Fault) -> Tracer:
        return inject(self._worker.pid, fault)

    def _breaks(self, fault: Fault, mark: int, what: str) -> None:
        self.tally.broken.append(f"{fault}: {what}\n{self._server.log[mark:][-3000:]}")

    def _count(self, fault: Fault, outcomes: list[Outcome], tracer: Tracer) -> None:
        tally = self.tally
        injected, ports = len(tracer.injected), tracer.ports
        tally.runs += 1
        tally.injected += injected
        tally.requests += len(outcomes)
        concerned = [outcome for outcome in outcomes if outcome.status != 200]
        unnamed = [outcome for outcome in concerned if outcome.port not in ports]  # one call may be about several
        if len(unnamed) > injected:
            tally.broken.append(f"{fault}: {injected} calls failed, and {len(unnamed)} clients: {unnamed}")
        for outcome in concerned:
            tally.refused[fault.call] += 1
            if outcome.port in ports or (fault.call in FILE_CALLS and "timed out" not in outcome.why):
                continue
            if fault.call == "accept4" and fault.errno in FULL and outcome.why.startswith(GONE):
                continue  # closed to make room, before it asked for anything
            failed = "\n".join(tracer.injected[:5])
            tally.broken.append(f"{fault}: not concerned, and yet {outcome}\n{failed}")

    def _see_who_serves(self, fault: Fault, mark: int) -> None:
        """The worker lives on, or it has asked for its replacement and was told to leave."""
        if "asks for its replacement" in self._server.log[mark:]:
            self.tally.replaced += 1
            self._meet_worker()
        elif not self._lives():
            self._breaks(fault, mark, "the worker ended")
            self._meet_worker()

    def _lives(self) -> bool:
        try:
            os.kill(self._worker.pid, 0)
        except ProcessLookupError:
            return False
        return self._worker in self._server.workers

    def _asked(self) -> tuple[int, int]:
        """Descriptors and threads of the worker with one client, to whom it says that all iterables were closed."""
        client = Client(self._connect)
        client.ask("/open", want=b"0")
        found = self._worker.descriptors, len(os.listdir(f"/proc/{self._worker.pid}/task"))
        client.sock.close()
        return found

    def _left(self) -> str:
        """What of the fault is still there once all clients have gone."""
        threads = 1 if self._threads == 1 else self._threads + 1

        def look() -> str:
            descriptors, running = self._asked()
            assert descriptors <= self._most, f"{descriptors} descriptors instead of {self._most}"
            assert running <= threads, f"{running} threads instead of {threads}"
            return "nothing"

        try:
            eventually(look, "nothing is left", 5)
        except (AssertionError, ValueError, OSError) as error:
            return str(error) or repr(error)
        return ""
