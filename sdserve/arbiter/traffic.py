"""What STATUS= says beyond the workers: how busy the service is, and what became of the last reload or upgrade.

A worker that becomes busy while nobody watches says so (process/scoreboard.py). From then on the master looks every few
seconds at what the workers have counted in shared memory. When nothing is new and nobody is busy, one last line says
since when, the workers are asked to speak up again, and the master sleeps: an idle service wakes up for none of this.
"""

from collections.abc import Callable

from sdserve.arbiter.lifecycle import Master
from sdserve.arbiter.loop import NO_DEADLINE
from sdserve.arbiter.service import Service
from sdserve.arbiter.service_manager import ServiceManager
from sdserve.immutable import Immutable
from sdserve.ops.backlog import waiting
from sdserve.ops.view import View, Watched, look
from sdserve.process.counters import BUCKETS, Row

EVERY = 3.0  # seconds between two looks while there is traffic, and so between two lines
LATEST = 24.0  # seconds at most: they double while workers are busy and nothing changes
P99 = 0.99
SHOWN_IN = (Master.RUNNING, Master.RELOADING)  # a stop, for one, matters more than the traffic before it


class Traffic(Immutable):
    """What happened between two looks.

    requests: answers to clients, in `seconds`; those to clients that left do not count
    p99: the bound in seconds that 99 % of them kept, inf beyond the last bound, None without any
    busy, threads: how many threads call WSGI applications now, of how many
    calls: how many requests the application has now, in a thread or on an event loop
    backlog: how many connections wait to be accepted, None if the kernel does not tell
    """

    requests: int
    seconds: float
    p99: float | None
    busy: int
    threads: int
    calls: int
    backlog: int | None

    def text(self, quiet_since: str = "") -> str:
        """One line. `quiet_since`: when the last request was, if the traffic is over."""
        if quiet_since:
            parts = [f"no requests since {quiet_since}"]
        else:
            parts = [f"{_rounded(self.requests / self.seconds)} requests/s"]
            if self.p99 is not None:
                parts.append(f"99 % within {_duration(self.p99)}")
        if self.threads and not quiet_since:
            parts.append(f"{self.busy} of {self.threads} threads busy")
        elif self.calls:
            parts.append(f"{self.calls} in progress")
        if self.backlog:
            parts.append(f"backlog {self.backlog}")
        return ", ".join(parts)


def _rounded(rate: float) -> str:
    """Two digits say enough, and do not change with every look."""
    return f"{float(f'{rate:.2g}'):,g}" if rate < 100 else f"{int(float(f'{rate:.2g}')):,}"


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "more than 10 s"
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


def between(before: Row | None, after: Row, seconds: float, view: View, backlog: int | None) -> Traffic:
    """What happened between two looks, `seconds` apart. `before` and `after` are all answers by each of them."""
    new = after if before is None else after - before
    return Traffic(
        requests=new.count,
        seconds=seconds,
        p99=new.quantile(P99),
        busy=sum(worker.calls for worker in view.workers if worker.threads),
        threads=sum(worker.threads for worker in view.workers),
        calls=sum(worker.calls for worker in view.workers),
        backlog=backlog,
    )


def answers(view: View) -> Row:
    """All answers that were sent to the end. Not WebSockets: they count as 1xx when they end, after any time."""
    rows = view.totals.answers
    return sum((rows[code] for code in ("2xx", "3xx", "4xx", "5xx")), Row((0,) * BUCKETS, 0.0))


class TrafficWatch:
    """Looks while there is traffic. `text` is what the line says of it."""

    def __init__(self, service: Service, manager: ServiceManager, moment: Callable[[float], str]) -> None:
        self._service = service
        self._manager = manager
        self._moment = moment
        self._outcome = ("", 0.0)
        self._when = ""  # the moment of `_outcome`, worked out once: it does not waver
        self._before: Row | None = None
        self._at = 0.0
        self._wait = EVERY
        self._next = NO_DEADLINE
        self.text = ""

    def begins(self) -> None:
        """A worker has become busy, or may be."""
        if self._next.cancelled and self._manager.notifier.enabled and not self._manager.notifier.muted:
            self._at, self._wait = self._service.loop.now(), EVERY
            if self._before is None:
                self._before = answers(self._view())
            self._again()

    def _again(self) -> None:
        self._next = self._service.loop.call_at(self._service.loop.now() + self._wait, self._look)

    def _look(self) -> None:
        self._next = NO_DEADLINE
        if self._manager.notifier.muted:  # another master speaks to systemd now
            return
        service, view, now = self._service, self._view(), self._service.loop.now()
        after, said = answers(view), self.text
        traffic = between(self._before, after, now - self._at, view, self._backlog())
        self._before, self._at = after, now
        if not traffic.requests and service.children.rest():
            used = service.children.last_use()
            self.text = traffic.text(self._moment(now - used)) if used else "no requests yet"
            return
        self.text = traffic.text()
        self._wait = EVERY if self.text != said else min(2 * self._wait, LATEST)
        self._again()

    def line(self) -> str:
        """What STATUS= says now."""
        if self._outcome is not self._service.outcome:
            self._outcome = self._service.outcome
            self._when = self._moment(self._service.loop.now() - self._outcome[1])
        return line(self._service, self._when, self.text)

    def _view(self) -> View:
        service = self._service
        watched = Watched(service.cell, service.counters, service.children.scoreboard)
        return look(watched, service.loop.now(), lambda pid: pid in service.children.handles)

    def _backlog(self) -> int | None:
        """The connections that wait in all listeners, None if the kernel tells of no listener."""
        known = [found for each in self._service.listeners if (found := waiting(each.sock)) is not None]
        return sum(now for now, _ in known) if known else None


def line(service: Service, when: str, text: str) -> str:
    """All that STATUS= says: the workers, the last reload or upgrade and when that was, and traffic."""
    parts = [service.status_line()]
    if service.state in SHOWN_IN:
        outcome, _ = service.outcome
        if outcome and outcome == service.trouble:  # the line ends with it
            parts[-1] += f" ({when})"
        elif outcome and not service.trouble:
            parts.append(f"{outcome} at {when}")
        if text:
            parts.append(text)
    return "; ".join(parts)


def watch_traffic(service: Service, manager: ServiceManager, moment: Callable[[float], str]) -> None:
    """Has STATUS= tell of traffic from now on, if anybody reads it. `moment` shows the time so many seconds ago."""
    if manager.notifier.enabled:
        watch = TrafficWatch(service, manager, moment)
        service.children.on_busy = manager.on_main = watch.begins
        manager.line = watch.line
