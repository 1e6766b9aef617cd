"""The new master's side of an upgrade: who was there before, what it passed on, and when it has ended.

A new master stays silent towards systemd until the old one tells it that it is the main process, and is promoted when
the old one has ended. From the hand-over on the old one drains, and has a deadline: a stop of the service waits for it.
"""

import signal
from collections.abc import Callable
from typing import Any

from sdserve.arbiter.host import Host
from sdserve.arbiter.loop import Loop
from sdserve.process.handover import Handover
from sdserve.process.pidfd import PidFd

LATE = 5.0  # seconds for what comes after its workers, on_exit for one; then its loop does not turn any more


class Succession:
    """The new master's side: who was there before, and what it passed on.

    `on_control` is called with the message that has the control socket, `on_main` when this master is the main process,
    `on_reload` when the old one was asked for a reload that it leaves to this one, `on_promoted` when it has ended.
    `on_late` is called when the old one has not ended in time, before it is killed.
    """

    def __init__(
        self,
        host: Host,
        loop: Loop,
        line: Handover,
        on_control: Callable[[dict[str, Any]], None],
        on_main: Callable[[], None],
        on_reload: Callable[[], None],
        on_promoted: Callable[[], None],
        on_late: Callable[[float], None],
    ) -> None:
        self._loop = loop
        self._line = line
        self._on_control = on_control
        self._on_main = on_main
        self._on_reload = on_reload
        self._on_promoted = on_promoted
        self._on_late = on_late
        self.parent = line.peer_pid()
        self.is_main = False
        hello = line.receive() or {}
        self.described: list[dict[str, Any]] = hello.get("listeners", [])
        self.queue: list[int] = hello.get("fds", [])
        self._process: PidFd | None = None
        try:
            self._process = host.process(self.parent)
        except ProcessLookupError:  # it died meanwhile
            self.parent = 0

    def begin(self) -> None:
        """Starts to listen to the old master."""
        if self._process is None:
            self._on_promoted()
            return
        self._loop.watch(self._line, self._hear)
        self._loop.watch(self._process, self._ended)

    def ready(self, status: str) -> None:
        self._line.send("ready", status=status)

    def failed(self, reason: str) -> None:
        self._line.send("failed", reason=reason)

    def _hear(self) -> None:
        while (message := self._line.receive()) is not None:
            if message["type"] == "control":
                self._on_control(message)
            elif message["type"] == "main":
                self.is_main = True
                self._on_main()
                self._bound(message.get("drains_for"))
            elif message["type"] == "reload":
                self._on_reload()
            elif message["type"] == "gone":
                self._loop.unwatch(self._line)
                return

    def _bound(self, seconds: float | None) -> None:
        """The old master has so long to end, by its own word; an older sdserve gives none."""
        if seconds is not None:
            self._loop.call_at(self._loop.now() + seconds + LATE, lambda: self._kill(seconds))

    def _kill(self, seconds: float) -> None:
        if self._process is not None:
            self._on_late(seconds + LATE)
            self._process.send(signal.SIGKILL)

    def _ended(self) -> None:
        self._hear()
        for watched in (self._line, self._process):
            if watched is not None:
                self._loop.unwatch(watched)
                watched.close()
        self._process = None
        self.parent = 0
        self._on_promoted()
