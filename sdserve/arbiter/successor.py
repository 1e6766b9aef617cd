"""The old master's side of USR2: the new master that was launched, what it says, and how it ends.

How it is launched stands in reexec.py, what follows from its answers is decided in upgrade.py.
"""

import signal
from collections.abc import Callable, Sequence

from sdserve.arbiter.host import Host
from sdserve.arbiter.lifecycle import UPGRADE, Upgrade, UpgradeEvent, advance, allows
from sdserve.arbiter.loop import Deadline, Loop
from sdserve.arbiter.reexec import Reexec
from sdserve.log import Logger
from sdserve.process.adoption import AdoptionQueue
from sdserve.process.handover import Handover
from sdserve.process.listeners import Listener, describe
from sdserve.process.pidfd import PidFd
from sdserve.process.rights import NO_ROOM

TERM_PATIENCE = 5.0  # seconds between TERM and KILL for a new master that is dropped


class Successor:
    """The old master's side: at most one new master at a time.

    `on_ready` is called when the new master serves, `on_lost` with its pid and the reason when there is none any more:
    "" when it ended before it served and said nothing.
    """

    def __init__(
        self, host: Host, loop: Loop, log: Logger, on_ready: Callable[[], None], on_lost: Callable[[int, str], None]
    ) -> None:
        self._host = host
        self._loop = loop
        self._log = log
        self._on_ready = on_ready
        self._on_lost = on_lost
        self.state = Upgrade.NONE
        self.pid = 0
        self.dropped = False
        self.said = ""  # what the new master said of itself when it served
        self._line: Handover | None = None
        self._process: PidFd | None = None
        self._deadline: Deadline | None = None
        self._reason = ""

    def start(
        self, listeners: Sequence[Listener], queue: AdoptionQueue, launch: Reexec, patience: float | None
    ) -> None:
        """Launches the new master, which must serve within `patience` seconds (None: whenever it does).

        Raises OSError when there is no room for another process.
        """
        ours, theirs = self._host.handover_pair()
        try:
            ours.send("hello", fds=queue.fds(), listeners=[describe(listener) for listener in listeners])
            pid = self._host.execute(launch, listeners, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.advance(UpgradeEvent.REEXEC)
        self.pid = pid
        self.dropped = False
        self._reason = ""
        self._line = ours
        self._loop.watch(ours, self._hear)
        try:
            self._process = self._host.process(pid)
        except ProcessLookupError:
            self._ended()
            return
        self._loop.watch(self._process, self._ended)
        if patience is not None:
            self._deadline = self._loop.call_at(
                self._loop.now() + patience, lambda: self.drop("it did not serve in time")
            )

    @property
    def alive(self) -> bool:
        """Whether there is a new master that has not ended, whatever the loop has heard of it yet."""
        return self._process is not None and not self._process.ended()

    @property
    def leaves(self) -> bool:
        """Whether a new master that was dropped has still to end."""
        return self.dropped and self._process is not None

    def pass_on(self, control: Listener) -> None:
        """Gives the control socket to the new master, or lets go of it: then that one opens its own."""
        assert self._line is not None
        try:
            self._line.send("control", fds=[control.fileno()], control=describe(control))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._log.warning("The control socket cannot be handed over: %s", error.strerror)
        control.close()

    def hand_over(self, drains_for: float) -> None:
        """Tells the new master that it is the main process now.

        drains_for: the seconds after which this master's workers have left, or were killed
        """
        assert self._line is not None
        self.advance(UpgradeEvent.HAND_OVER)
        self._cancel_deadline()
        self._line.send("main", drains_for=drains_for)

    def pass_on_reload(self) -> bool:
        """Has the new master, which is the main process, reload; false if it is gone."""
        return self._line is not None and self._line.send("reload")

    def drop(self, reason: str) -> None:
        """Ends a new master that is not the main process yet: TERM now, KILL if it stays.

        One that was stopped is continued first, or it would not hear of it (systemd.kill(5) does the same).
        """
        if self._process is None or self.state is Upgrade.HANDED_OVER:
            return
        self._reason = self._reason or reason
        self.dropped = True
        self._process.send(signal.SIGTERM)
        self._process.send(signal.SIGCONT)
        self._cancel_deadline()
        self._deadline = self._loop.call_at(self._loop.now() + TERM_PATIENCE, self._kill)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.send(signal.SIGKILL)

    def _hear(self) -> None:
        while self._line is not None and (message := self._line.receive()) is not None:
            if message["type"] == "ready" and self.alive and allows(UPGRADE, self.state, UpgradeEvent.READY):
                self.advance(UpgradeEvent.READY)
                self.said = str(message.get("status", "it serves"))  # an older version says nothing
                self._cancel_deadline()
                self._on_ready()
            elif message["type"] == "failed":
                self._reason = str(message.get("reason", ""))
            elif message["type"] == "gone":
                self._loop.unwatch(self._line)  # its end, or its exec into something else, shows at the pidfd
                return

    def _ended(self) -> None:
        self._hear()
        served = self.state is not Upgrade.BOOTING
        self._lose(self._reason or ("it ended" if served else ""))

    def _lose(self, reason: str) -> None:
        for watched in (self._line, self._process):
            if watched is not None:
                self._loop.unwatch(watched)
                watched.close()
        self._line = self._process = None
        self._cancel_deadline()
        was = self.state
        self.advance(UpgradeEvent.LOST)
        if was is not Upgrade.HANDED_OVER:
            pid, self.pid = self.pid, 0
            self._on_lost(pid, reason)

    def advance(self, event: UpgradeEvent) -> None:
        before = self.state
        self.state = advance(UPGRADE, self.state, event)
        self._log.trace("upgrade to %s: %s, was %s, now %s", self.pid, event.value, before.value, self.state.value)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
