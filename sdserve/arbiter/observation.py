"""The listeners of metrics and health, and the process that answers there while somebody asks.

The master only watches whether one of them is readable. It accepts nothing and reads nothing there: it forks an
observer (ops/observer.py), which does, and looks away until that has ended. An observer that fails costs a line in the
log, the next one waits as a worker would (`Backoff`), and the service does not notice. The observer leaves when its
lifeline is closed: a reload changes the listeners and the configuration that it was forked with.
"""

import os
import signal
from contextlib import suppress

from sdserve.arbiter.addresses import Addresses
from sdserve.arbiter.decide import Backoff
from sdserve.arbiter.host import Host
from sdserve.arbiter.loop import NO_DEADLINE
from sdserve.arbiter.service import Service
from sdserve.config.address import address
from sdserve.descriptor import Descriptor
from sdserve.errors import ListenError, no_room
from sdserve.process.listeners import AGENT, METRICS, Listener, match
from sdserve.process.pidfd import Child
from sdserve.rate_limit import RateLimit

# Seconds that an observer has to leave. Who answers nobody does so at once; one that has just begun imports what makes
# its first answer. It needs longer only if somebody has stopped it, and is killed.
LEAVE = 2.0
LINES, MINUTE = 8, 60.0  # how often the log says, in how many seconds, that an observer has failed


class Observation:
    """The master's part of metrics and health. Nothing is watched before `keep_open`."""

    def __init__(self, service: Service, host: Host, addresses: Addresses) -> None:
        self._service = service
        self._host = host
        self._addresses = addresses
        self._looks = False
        self._watched: list[Listener] = []
        self._process: Child | None = None
        self._lifeline = Descriptor(-1)
        self._born = 0.0  # when the last one was forked (monotonic seconds)
        self._backoff = Backoff()
        self._again = NO_DEADLINE
        self._failures = RateLimit(LINES, MINUTE)  # where there is no room for a process, each second brings one

    def keep_open(self) -> None:
        """Listens on the configured addresses, and answers there."""
        self._looks = True
        self._follow()
        if (process := self._process) is not None:
            self._lifeline.close()
            self._service.loop.call_at(self._service.loop.now() + LEAVE, lambda: self._overdue(process))
        else:
            self._look()

    def renew(self) -> None:
        """Listeners or configuration have changed: the present observer leaves, and the next one knows them."""
        if self._looks:
            self.keep_open()

    def _overdue(self, process: Child) -> None:
        if self._process is process:
            process.send(signal.SIGKILL)

    def _follow(self) -> None:
        """Listens where the configuration says, besides what systemd has passed. A failure costs metrics alone."""
        service = self._service
        self._look_away()
        kept = [each for each in service.observed if each.activated]
        there = [*service.observed, *self._addresses.unserved]  # the latter another master may serve, and has open
        for name, wanted in ((METRICS, service.cfg.metrics_bind), (AGENT, service.cfg.agent_bind)):
            present = [each for each in there if each.name == name and not each.activated]
            for where, found in match(map(address, wanted), present):
                try:
                    listener = found or self._host.bind(where, backlog=64)
                except ListenError as error:
                    service.log.warning("no %s: %s", name, error)
                    continue
                listener.name = name
                kept.append(listener)
        for each in service.observed:
            if each not in kept:
                self._addresses.let_go(each)
        service.observed = kept
        self._addresses.take_up(kept)

    def release(self) -> None:
        """Another master answers from now on, on the same listeners."""
        self._looks = False
        self._look_away()
        self._lifeline.close()

    def close(self) -> None:
        """The end of this master. It waits for answers under way, and for nothing else."""
        self.release()
        self._addresses.close(self._service.observed)
        self._service.observed = []
        if self._process is not None and not self._process.ended(LEAVE):
            self._process.send(signal.SIGKILL)

    def _look(self) -> None:
        if self._looks and not self._watched and self._process is None:
            self._watched = list(self._service.observed)
            if self._watched:
                import sdserve.arbiter.observe  # noqa: F401 - while the disk has it
            for listener in self._watched:
                self._service.loop.watch(listener, self._begin)

    def _look_away(self) -> None:
        watched, self._watched = self._watched, []
        for listener in watched:
            self._service.loop.unwatch(listener)
        self._again.cancel()

    def _begin(self) -> None:
        """Somebody asks."""
        self._look_away()
        self._born = self._service.loop.now()
        try:
            lifeline, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            self._failed(f"cannot begin: {no_room('its process', error)}", outside=True)
            return
        self._lifeline = Descriptor(end)
        self._service.loop.own(self._lifeline)
        try:
            self._process = process = self._host.fork_observer(self._service, self._addresses, lifeline)
        except OSError as error:
            self._lifeline.close()
            self._failed(f"cannot begin: {no_room('its process', error)}", outside=True)
            return
        finally:
            os.close(lifeline)
        self._service.loop.watch(process, self._ended)

    def _ended(self) -> None:
        process = self._process
        status = process.reap() if process is not None else None
        if process is None or status is None:
            return
        self._process = None
        self._lifeline.close()
        self._service.loop.unwatch(process)
        with suppress(OSError):  # it is closed, whatever close(2) says
            process.close()
        if status == 0:
            self._backoff = Backoff()
            self._look()
        else:
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            self._failed(f"ended with wait status {status}", outside=killed)

    def _failed(self, what: str, *, outside: bool) -> None:
        """Whoever waits in the listeners has to wait longer, if observers keep failing."""
        loop = self._service.loop
        now = loop.now()
        self._backoff = self._backoff.after_death(self._born, now - self._born, now, outside=outside)
        pause = max(0.0, self._backoff.not_before - now)
        when = f"in {pause:.3g} s" if pause else "at once"
        line = "The observer of metrics and health %s; the next one %s"
        self._failures.say(now, self._service.log.error, line, what, when)
        self._again = loop.call_at(now + pause, self._try_again)

    def _try_again(self) -> None:
        self._again = NO_DEADLINE
        self._look()
