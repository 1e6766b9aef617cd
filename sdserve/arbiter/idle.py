"""Exit on idle: a service that nobody uses ends, and systemd keeps its socket for the next client.

Race-free because leaving is an ordinary graceful stop: workers first cease to accept, then serve what they hold. A
connection that comes too late for them waits in the socket's backlog, and starts the service again.
"""

from collections.abc import Callable

from sdserve import events
from sdserve.arbiter.lifecycle import Master
from sdserve.arbiter.service import Service


class IdleExit:
    """Calls `stop` when no worker has been busy for `idle_exit` seconds."""

    def __init__(self, service: Service, stop: Callable[[], None]) -> None:
        self._service = service
        self._stop = stop
        self._limit = service.cfg.idle_exit
        self._since = service.loop.now()
        self._look()

    def _look(self) -> None:
        service, now = self._service, self._service.loop.now()
        quiet_since = max(self._since, service.children.last_use())
        self._since = quiet_since
        if now - quiet_since >= self._limit:
            if service.state is Master.RUNNING and not service.reexec_pid and not service.master_pid:
                service.log.event(events.IDLE, SECONDS=self._limit)
                self._stop()
            quiet_since = now  # there may be reasons to stay
        service.loop.call_at(quiet_since + self._limit, self._look)


def watch_idleness(service: Service, stop: Callable[[], None]) -> None:
    """Has `stop` called when the service is idle, if it is configured so and systemd can start the service again."""
    limit = service.cfg.idle_exit
    if limit and not service.systemd:
        service.log.warning("idle_exit has no effect: only systemd can start the service again at the next connection")
    elif limit:
        IdleExit(service, stop)
