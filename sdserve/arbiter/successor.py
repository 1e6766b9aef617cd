"""The old master's view of the new one: its process, what it says, and how it ends.

How it is executed stands in reexec.py, what follows from its answers is decided in old_master.py.
"""

import signal
from collections.abc import Callable, Sequence
from typing import Any

from sdserve.arbiter.host import Host
from sdserve.arbiter.lifecycle import AFTER_WORKERS, UPGRADE, Upgrade, UpgradeEvent, allows
from sdserve.arbiter.loop import NO_DEADLINE
from sdserve.arbiter.reexec import Reexec
from sdserve.arbiter.service import Service
from sdserve.descriptor import Descriptor
from sdserve.process.adoption import AdoptionQueue
from sdserve.process.handover import Handover
from sdserve.process.listeners import Listener, describe
from sdserve.process.pidfd import PidFd
from sdserve.process.rights import NOT_NOW

TERM_TIMEOUT = 5.0  # seconds between TERM and KILL for a new master that is dropped


class Successor:
    """At most one new master at a time; `service.upgrade` says how far it has come.

    `on_ready` is called when the new master serves, `on_ending` when it was told to stop, with whether a restart
    follows, `on_lost` with its pid and the reason when there is none any more: "" when it ended before it served and
    said nothing.
    """

    def __init__(
        self,
        service: Service,
        host: Host,
        on_ready: Callable[[], None],
        on_ending: Callable[[bool], None],
        on_lost: Callable[[int, str], None],
    ) -> None:
        self._service = service
        self._host = host
        self._on_ready = on_ready
        self._on_ending = on_ending
        self._on_lost = on_lost
        self.said = ""  # what the new master said of itself when it served
        self._handover: Handover | None = None
        self._process: PidFd | None = None
        self._deadline = NO_DEADLINE
        self._boots_until = 0.0
        self._reason = ""
        self._reloads = 0  # that it has to follow
        self._stopped = False  # by us

    def start(
        self,
        listeners: Sequence[Listener],
        queue: AdoptionQueue,
        counters: Descriptor | None,
        reexec: Reexec,
        timeout: float | None,
    ) -> None:
        """Executes the new master, which must serve within `timeout` seconds (None: whenever it does).

        Raises OSError when there is no room for another process.
        """
        ours, theirs = self._host.handover_pair()
        try:
            told = [describe(listener) for listener in listeners]
            ours.send("hello", fds=queue.fds(), listeners=told, counters=counters is not None)
            if counters is not None:  # apart from the queue: an older sdserve expects that alone
                ours.send("counters", fds=[counters.fileno()])
            process = self._host.execute(reexec, listeners, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._service.advance_upgrade(UpgradeEvent.REEXEC)
        self._service.reexec_pid = process.pid
        self._reason = ""
        self._reloads = 0
        self._stopped = False
        self._handover, self._process = ours, process
        loop = self._service.loop
        loop.watch(ours, self._hear)
        loop.watch(process, self._ended)
        if timeout is not None:
            self._must_serve_by(loop.now() + timeout)
            self._boots_until = loop.now() + timeout

    @property
    def alive(self) -> bool:
        """Whether there is a new master that has not ended, whatever the loop has heard of it yet."""
        return self._process is not None and not self._process.ended()

    def pass_on(self, control: Listener) -> None:
        """Gives the control socket to the new master, or lets go of it: then that one opens its own."""
        assert self._handover is not None
        try:
            self._handover.send("control", fds=[control.fileno()], control=describe(control))
        except OSError as error:
            if error.errno not in NOT_NOW:
                raise
            self._service.log.warning("The control socket cannot be handed over: %s", error.strerror)
        control.close()

    def hand_over(self, heard: bool, opened: Sequence[Listener]) -> bool:
        """Tells the new master that it is the main process now, and by when this one ends, once systemd has heard.

        opened: the listeners that it does not have yet, as a reload during the upgrade has opened them
        False if it has gone. Raises OSError, and nothing has happened: to be said again.
        """
        said = self._send_with(opened, "main", drains_for=self._service.children.timeout() if heard else None)
        self._service.advance_upgrade(UpgradeEvent.HAND_OVER)
        self._deadline.cancel()
        return said

    def _send_with(self, opened: Sequence[Listener], type: str, **fields: Any) -> bool:
        """Says something, and passes listeners along. False if nobody hears it. Raises OSError."""
        assert self._handover is not None
        fds = [listener.fileno() for listener in opened]
        return self._handover.send(type, fds, listeners=list(map(describe, opened)), **fields)

    def bring_along(self, seconds: float | None, opened: Sequence[Listener]) -> bool:
        """Has a new master that is not the main process yet reload, too: it serves when it has.

        seconds: that a reload may take; whatever it is at, a boot or another reload, ends first
        opened: the listeners that it does not have yet, and could not open: they are in use here
        False if there is none, or it has gone. Raises OSError, and nothing has happened: to be said again.
        """
        if self._handover is None or self._service.upgrade not in (Upgrade.BOOTING, Upgrade.SERVING):
            return False
        if not self._send_with(opened, "reload"):
            return False
        self._reloads += 1
        if seconds is not None and not self._deadline.cancelled:
            self._must_serve_by(max(self._boots_until, self._service.loop.now() + seconds) + seconds)
        return True

    def is_heard(self) -> None:
        """Tells the new master that systemd takes it for the main process only from now on."""
        if self._handover is not None:
            self._handover.send("heard", drains_for=self._service.children.timeout())

    def pass_on_reload(self) -> bool:
        """Has the new master, which is the main process, reload; false if it is gone."""
        return self._handover is not None and self._handover.send("reload")

    def stop(self, graceful: bool, restart: bool, timeout: float) -> None:
        """Has a new master that serves stop as this one does; KILL if it has not ended after `timeout` seconds.

        An older version does not know what it is told, and is killed then.
        """
        if self._handover is None or not allows(UPGRADE, self._service.upgrade, UpgradeEvent.END):
            return
        self._service.advance_upgrade(UpgradeEvent.END)
        self._stopped = True
        self._handover.send("stop", graceful=graceful, restart=restart)
        self._must_end_within(timeout)

    @property
    def ends_first(self) -> bool:
        """Whether this master has to outlive the new one: nobody else would end it."""
        upgrade = self._service.upgrade
        return upgrade is Upgrade.DROPPED or (upgrade is Upgrade.ENDING and self._stopped and self._process is not None)

    def _must_serve_by(self, when: float) -> None:
        self._deadline.cancel()
        self._deadline = self._service.loop.call_at(when, lambda: self.drop("it did not serve in time"))

    def _must_end_within(self, seconds: float) -> None:
        self._deadline.cancel()
        self._deadline = self._service.loop.call_at(self._service.loop.now() + seconds, self._kill)

    def drop(self, reason: str) -> None:
        """Ends a new master that does not serve yet: TERM now, KILL if it stays.

        One that was stopped is continued first, or it would not hear of it (systemd.kill(5) does the same).
        """
        if self._process is None or not allows(UPGRADE, self._service.upgrade, UpgradeEvent.DROP):
            return
        self._service.advance_upgrade(UpgradeEvent.DROP)
        self._reason = self._reason or reason
        self._process.send(signal.SIGTERM)
        self._process.send(signal.SIGCONT)
        self._must_end_within(TERM_TIMEOUT)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.send(signal.SIGKILL)

    def _hear(self) -> None:
        while self._handover is not None and (message := self._handover.receive()) is not None:
            allowed = allows(UPGRADE, self._service.upgrade, UpgradeEvent.READY)
            follows = message.get("reloads", self._reloads) >= self._reloads  # an older version does so afterwards
            if message["type"] == "ready" and self.alive and allowed and follows:
                self._service.advance_upgrade(UpgradeEvent.READY)
                self.said = str(message.get("status", "it serves"))  # an older version says nothing
                self._deadline.cancel()
                self._on_ready()
            elif message["type"] == "ending" and allows(UPGRADE, self._service.upgrade, UpgradeEvent.END):
                self._service.advance_upgrade(UpgradeEvent.END)
                if self.ends_first:
                    self._must_end_within(message["drains_for"] + AFTER_WORKERS)
                self._on_ending(message["restart"])
            elif message["type"] == "failed":
                self._reason = str(message.get("reason", ""))
            elif message["type"] == "gone":
                self._service.loop.unwatch(self._handover)  # its end, or its exec of another program: the pidfd tells
                return

    def _ended(self) -> None:
        self._hear()
        was = self._service.upgrade
        reason = self._reason or ("it ended" if was is not Upgrade.BOOTING else "")
        self._service.loop.drop(self._handover, self._process)
        self._handover = self._process = None
        self._deadline.cancel()
        self._service.advance_upgrade(UpgradeEvent.LOST)
        if not self._service.handed_over:
            pid, self._service.reexec_pid = self._service.reexec_pid, 0
            self._on_lost(pid, reason)
