"""Leaving a load balancer in order: it stops to send clients here, then connections end, then the service may stop.

At first everything is served as ever, but health checks are answered with `drain` (the master's state in the counters).
After the seconds that a load balancer has to notice, each answer is its connection's last, and idle connections are
closed, politely: a client that was active a moment ago has time for one more request. The drain is over when no
connection is left, or requests take longer than graceful_timeout. The service stays drained, or stops.
"""

from collections.abc import Callable
from typing import Any

from sdserve import events
from sdserve.arbiter.call import Call
from sdserve.arbiter.loop import NO_DEADLINE
from sdserve.arbiter.service import Service
from sdserve.events import Event
from sdserve.workers.words import DRAIN, UNDRAIN

SECONDS = 10.0  # without --for: enough for three checks of a load balancer that looks every two or three seconds
LOOK_EVERY = 0.1  # seconds between two looks at the connections, while they end


class Drain:
    """At most one drain at a time. It calls `stop` at its end, if it was asked to."""

    def __init__(self, service: Service, stop: Callable[[], None]) -> None:
        self._service = service
        self._stop = stop
        self._next = NO_DEADLINE
        self._until = 0.0
        self._stops = False
        self._waiting: list[Call] = []

    def ask(self, call: Call) -> None:
        """Drains; `call` is answered when it is over. Asked again, it begins anew, and a stop stays promised."""
        service, seconds = self._service, call.get("seconds")
        seconds = SECONDS if seconds is None else seconds
        self._stops = self._stops or bool(call.get("stop"))
        self._waiting.append(call)
        self._tell(events.DRAINING, SECONDS=seconds, then="it stops" if self._stops else "its connections end")
        service.draining = True
        self._at(service.loop.now() + seconds, self._end_connections)

    def take_back(self, call: Call) -> None:
        """Ends the drain: everything is as before."""
        service = self._service
        if not service.draining:
            call.reply("the service does not drain")
            return
        self._next.cancel()
        self._stops = False
        service.draining = service.ends_connections = False
        for handle in service.children:
            handle.tell(UNDRAIN)
        self._tell(events.UNDRAINED)
        self._fail("taken back by undrain")
        call.reply(f"taken back: {service.status_line()}")

    def ends(self) -> None:
        """The service is being stopped, or another master has taken over."""
        self._next.cancel()
        self._fail("the service is being stopped")

    def _tell(self, event: Event, **about: Any) -> None:
        self._service.log.event(event, **about)
        self._service.happens("drain", event.message % about)

    def _at(self, when: float, step: Callable[[], None]) -> None:
        self._next.cancel()
        self._next = self._service.loop.call_at(when, step)

    def _end_connections(self) -> None:
        service = self._service
        service.ends_connections = True
        for handle in service.children:
            handle.tell(DRAIN)
        self._until = service.loop.now() + service.cfg.graceful_timeout
        self._tell(events.DRAIN_ENDS_CONNECTIONS)
        self._at(service.loop.now() + LOOK_EVERY, self._look)

    def _look(self) -> None:
        service, now = self._service, self._service.loop.now()
        left = sum(handle.connections for handle in service.children)
        if left and now < self._until:
            self._at(now + LOOK_EVERY, self._look)
            return
        told = "all connections have ended" if not left else f"{left} connections are left"
        self._tell(events.DRAINED, CONNECTIONS=left, told=told)
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call.reply(f"drained: {told}{'; the service stops' if self._stops else ''}", connections=left)
        if self._stops:
            self._stop()

    def _fail(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call.fail("Refused", reason)
