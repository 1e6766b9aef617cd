"""Exit on idle: a service that nobody uses ends, and systemd keeps its socket for the next client.

Race-free because leaving is an ordinary graceful stop: workers first cease to accept, then serve what they hold. A
connection that comes too late for them waits in the socket's backlog, and starts the service again.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from sdserve.arbiter.lifecycle import Master
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.worker_handle import WorkerHandle

if TYPE_CHECKING:
    from sdserve.arbiter.arbiter import Arbiter


class IdleExit:
    """Calls `on_idle` when no worker has been busy for `limit` seconds."""

    def __init__(self, loop: Loop, limit: float, workers: Iterable[WorkerHandle], on_idle: Callable[[], None]) -> None:
        self._loop = loop
        self._limit = limit
        self._workers = workers
        self._on_idle = on_idle
        self._since = loop.now()
        self._look()

    def _look(self) -> None:
        now = self._loop.now()
        quiet_since = max((self._since, *(self._last_use(handle, now) for handle in self._workers)))
        self._since = quiet_since
        if now - quiet_since >= self._limit:
            self._on_idle()
            quiet_since = now  # it may have had reasons to stay
        self._loop.call_at(quiet_since + self._limit, self._look)

    @staticmethod
    def _last_use(handle: WorkerHandle, now: float) -> float:
        return now if handle.cell.busy_since else handle.cell.last_busy


def watch_idleness(arbiter: "Arbiter") -> None:
    """Has `arbiter` leave when idle, if it is configured so and systemd can start the service again."""
    limit = arbiter.cfg.idle_exit
    if limit and not arbiter.systemd:
        arbiter.log.warning("idle_exit has no effect: only systemd can start the service again at the next connection")
    elif limit:
        IdleExit(arbiter.loop, limit, arbiter.children, lambda: _leave(arbiter))


def _leave(arbiter: "Arbiter") -> None:
    if arbiter.state is Master.RUNNING and not arbiter.reexec_pid and not arbiter.master_pid:
        arbiter.log.info("No request for %g seconds (idle_exit): leaving the socket to systemd", arbiter.cfg.idle_exit)
        arbiter.stop()
