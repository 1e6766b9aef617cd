"""A campaign against a worker that leaves: a reload replaces it while one of its system calls fails.

The promise: connections that wait are answered afterwards, by whoever serves then, but those that were concerned; the
reload succeeds; and the worker is gone, by itself, within its time.
"""

import signal

from tests.faults.clients import Client, meet
from tests.faults.points import LEFT_OUT
from tests.faults.strace import Fault, Tracer, watch
from tests.faults.worker import QUICK, WorkerCampaign

WAITING = 5  # clients with a connection that waits
PATIENCE = 12.0  # seconds for a reload


class LeavingCampaign(WorkerCampaign):
    """A server of one worker, which is reloaded for each fault."""

    def calls(self) -> list[str]:
        """Every system call that a worker makes from when it hears that it shall leave, and that can fail."""
        idle = self._waiting()
        with watch(self._worker.pid) as tracer:
            self._reload()
        meet(self._connect, idle, {})
        return sorted(set(tracer.calls) - LEFT_OUT)

    def _waiting(self) -> list[Client]:
        idle = [Client(self._connect) for _ in range(WAITING)]
        for client in idle:
            client.ask()
        return idle

    def _reload(self) -> None:
        before, mark = self._worker, self._server.mark
        self._server.kill(signal.SIGHUP)
        self._server.wait_log("Reloaded: ", since=mark, timeout=PATIENCE)
        before.wait_gone(PATIENCE)
        [self._worker] = self._server.wait_workers(1, [before.pid])

    def _one(self, fault: Fault) -> None:
        mark = self._server.mark
        idle = self._waiting()
        tracer: Tracer
        with self._inject(fault) as tracer:
            try:
                self._reload()
            except (AssertionError, TimeoutError) as error:
                self._breaks(fault, mark, f"the reload: {error}")
                self._meet_worker()
        # Who was in one message of connections shares its fate, and nobody else does.
        outcomes = meet(self._connect, idle, QUICK)
        self._count(fault, outcomes, tracer)
