"""The master's conversation with systemd: readiness, status, time, and the watchdog.

While a start, a reload or a stop is under way the service asks for more time, again and again: a boot that takes
longer than TimeoutStartSec= is not a failure, and a master that hangs stops asking. The watchdog is pinged from the
loop, so it stops when the loop does, and only while `healthy` says that somebody can answer clients. What a dead master
leaves behind is ended by the watchdog, too: pings come often enough that its workers have time to finish.

To systemd, asking for time is a sign of life as well: EXTEND_TIMEOUT_USEC= moves the watchdog's deadline. So nobody
asks for a reload while nobody can answer, nor for more time than the watchdog allows.
"""

from collections.abc import Callable

from sdserve.arbiter.lifecycle import LEAVING, Master
from sdserve.arbiter.loop import NO_DEADLINE
from sdserve.arbiter.main_process import Heir, MainProcess
from sdserve.arbiter.service import Service
from sdserve.systemd.notify import Notifier
from sdserve.systemd.watchdog import Watchdog

LASTING = (Master.STARTING, Master.RELOADING, *LEAVING)  # states in which systemd waits for what they lead to
ORPHANS_END = 1.0  # seconds beyond orphan_timeout in which the last worker of a dead master is gone
ASK_EVERY = 0.5  # seconds; shorter than any time-out that a unit file can sensibly set
ASK_FOR = 5.0  # seconds
FIRST_WAIT, LAST_WAIT = 0.1, 20.0  # seconds between attempts to send what could not be sent; they double
OWED_WAIT = 0.5  # no more, while this master stays for nothing else


class ServiceManager:
    """Speaks for one master, while that is the main process (`main`): else nobody hears it."""

    def __init__(self, service: Service, notifier: Notifier, watchdog: Watchdog, healthy: Callable[[], bool]) -> None:
        self._service = service
        self._healthy = healthy
        self.notifier = notifier
        notifier.on_failure = self._not_heard
        self.main = MainProcess(service.loop, notifier)
        self.watchdog = watchdog
        self._asking = NO_DEADLINE
        self._extended = False
        self._again = NO_DEADLINE
        self._wait = FIRST_WAIT
        self._complained = False
        self.line: Callable[[], str] = service.status_line  # of STATUS=; traffic.py has more to say
        self.on_main: Callable[[], None] = lambda: None

    @property
    def _spare(self) -> float:
        """The seconds that workers need to finish their requests, should this master die."""
        return self._service.cfg.orphan_timeout + ORPHANS_END

    def announce(self) -> None:
        """Warns of what a new configuration does not leave time for."""
        if self.watchdog.falls_short(self._spare):
            self._service.log.warning(
                "WatchdogSec= is %g s, orphan_timeout %g s: should the master die, systemd may kill the workers before "
                "they have finished; let WatchdogSec= be longer by a few seconds",
                *(self.watchdog.limit, self._service.cfg.orphan_timeout),
            )

    def become_main(self, *, stopping: bool = False) -> None:
        """The unit is ours now: systemd listens to us from here on, and its watchdog waits for us already."""
        self.main.comes()
        self.notifier.takes_over(self.line())
        if stopping:  # the operator ended both masters: the watchdog must not wait for one that drains
            self.stopping()
        self.on_main()

    def ask_for_time(self, wanted: bool) -> None:
        """Keeps extending the time-out of the job under way while `wanted`."""
        if not wanted:
            self._asking.cancel()
        elif self._asking.cancelled:
            self._ask()

    def begin_step(self, seconds: float) -> None:
        """Before something that keeps the loop from turning: the job under way and the watchdog wait for it.

        A service in which nobody can answer gets no more time by that.
        """
        self._extended = self._healthy()
        if self._extended:
            self.notifier.extend_timeout(seconds)

    def end_step(self) -> None:
        """The loop turns again, and the watchdog waits no longer than ever."""
        limit = self.watchdog.limit
        if self._extended and limit is not None:
            self.notifier.watchdog_again(limit)

    def ready(self) -> None:
        self.notifier.ready(self.line())

    def reloaded(self, began: float) -> None:
        self.notifier.reloaded(self.line(), began)

    def report(self) -> None:
        """Brings STATUS= up to date, without a word where nothing changed, and asks for time where that is needed.

        What ended the service stays its last status.
        """
        service = self._service
        self.ask_for_time(service.state in LASTING)
        if service.state is not Master.DOWN and service.exit_status == 0:
            self.notifier.status(self.line())

    def stopping(self) -> None:
        self.notifier.stopping(self.line())

    def pass_to(self, pid: int, heir: Heir) -> None:
        """The unit's main process is another one; from then on nothing that this one says counts."""
        self.main.passes_to(pid, heir)
        if self.notifier.unsent:
            self._wait = FIRST_WAIT
            self._try_later()

    def stays_main(self) -> None:
        """The unit is being stopped with the main process that it had, this one."""
        self.main.stays()
        self.stopping()

    def _ask(self) -> None:
        # A master that leaves answers no new clients, and has deadlines.
        if self._service.state in LEAVING or self._healthy():
            self.notifier.extend_timeout(min(ASK_FOR, self.watchdog.limit or ASK_FOR))
        self._asking = self._service.loop.call_at(self._service.loop.now() + ASK_EVERY, self._ask)

    def ping(self) -> None:
        """Gives a sign of life while all is well, and again before the watchdog waits for it."""
        wait = self.watchdog.interval(self._spare)
        if wait is None:
            return
        if not (self._healthy() and self.notifier.watchdog()):
            wait /= 10  # nobody can answer, or systemd did not hear: it may be a moment only, and the next is not late
        self._service.loop.call_at(self._service.loop.now() + wait, self.ping)

    def _send_again(self) -> None:
        """Until systemd has heard all of it, however long that takes: a start is not over before, nor a hand-over."""
        if not self.notifier.send_again():
            self._wait = min(2 * self._wait, OWED_WAIT if self.main.is_owed else LAST_WAIT)
            self._try_later()
            return
        self._again, self._wait = NO_DEADLINE, FIRST_WAIT
        self.main.all_is_sent()

    def _try_later(self) -> None:
        self._again.cancel()
        self._again = self._service.loop.call_at(self._service.loop.now() + self._wait, self._send_again)

    def _not_heard(self) -> None:
        if self.notifier.unsent and self._again is NO_DEADLINE:
            self._try_later()
        if not self._complained:
            self._complained = True
            self._service.log.warning("systemd cannot be notified: %s", self.notifier.trouble)
