"""A campaign against a worker: while one of its system calls fails, clients of all kinds are served.

The promise: whoever is not concerned gets the right answer, whoever is gets an error or an end, within PATIENCE; never
more of them than calls that failed; and the worker lives on, and serves everybody as soon as the fault is over.
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
from tests.faults.strace import Fault, inject, watch
from tests.support.server import Server, connector, listener

SEGMENT = 1460  # bytes
QUICK = {kind: KINDS[kind] for kind in ("new", "kept", "big post")}


@dataclass
class Tally:
    """What a campaign did and saw."""

    runs: int = 0
    injected: int = 0
    requests: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.injected} calls failed, {self.requests} clients checked, "
            f"{sum(self.refused.values())} of them concerned, {len(self.broken)} promises broken"
        )


class WorkerCampaign:
    """A server with one worker of `threads` threads, inside a `with`."""

    def __init__(self, threads: int = 1) -> None:
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
        self.tally = Tally()

    def __enter__(self) -> "WorkerCampaign":
        self._server.wait_ready()
        [worker] = self._server.wait_workers(1)
        self._pid = worker.pid
        meet(self._connect, [])
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.__exit__(None, None, None)
        self._listener.close()
        self._directory.cleanup()

    def calls(self) -> list[str]:
        """Every system call that the worker makes for clients of all kinds, and that can fail."""
        with watch(self._pid) as tracer:
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
        tally = self.tally
        idle = [Client(self._connect) for _ in range(2)]
        for client in idle:
            client.ask()
        with inject(self._pid, fault) as tracer:
            outcomes = meet(self._connect, idle)
        tally.runs += 1
        tally.injected += len(tracer.injected)
        tally.requests += len(outcomes)
        self._judge(fault, outcomes, tracer.ports, len(tracer.injected))
        if not self._lives():
            tally.broken.append(f"{fault}: the worker ended\n{self._server.log[-3000:]}")
            [worker] = self._server.wait_workers(1, [self._pid])
            self._pid = worker.pid
        after = meet(self._connect, [], QUICK)
        tally.requests += len(after)
        for outcome in after:
            if outcome.status != 200:
                tally.broken.append(f"{fault}: after it, {outcome}\n{self._server.log[-3000:]}")

    def _judge(self, fault: Fault, outcomes: list[Outcome], ports: set[int], injected: int) -> None:
        tally = self.tally
        concerned = [outcome for outcome in outcomes if outcome.status != 200]
        if len(concerned) > injected:
            tally.broken.append(f"{fault}: {injected} calls failed, and {len(concerned)} clients: {concerned}")
        for outcome in concerned:
            tally.refused[fault.call] += 1
            if outcome.port in ports or (fault.call in FILE_CALLS and "timed out" not in outcome.why):
                continue
            if fault.call == "accept4" and outcome.kind == "idle" and "Disconnected" in outcome.why:
                continue  # closed to make room, as any idle connection may be
            tally.broken.append(f"{fault}: not concerned, and yet {outcome}")

    def _lives(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return any(process.pid == self._pid for process in self._server.workers)
