"""USR2, as the new master: who was there before, what it passed on, and what follows when it has ended.

A new master stays silent towards systemd until the old one tells it that it is the main process, and is promoted when
the old one has ended: then it takes what that held by name. From the hand-over on the old one drains, and has a
deadline: a stop of the service waits for it.

The old master serves newer code than this one has read, where it has reloaded since. It asks for a reload here as
well, as a client of the control socket does, and waits for the outcome. A new master that cannot follow leaves.
"""

import math
import os
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sdserve import events
from sdserve.arbiter.call import Call, Message
from sdserve.arbiter.lifecycle import AFTER_WORKERS, LEAVING
from sdserve.arbiter.policy import Parts, Policy
from sdserve.errors import BootError
from sdserve.process.handover import Handover
from sdserve.process.listeners import OBSERVED, Listener
from sdserve.process.pidfd import PidFd
from sdserve.systemd.notify import is_main_process

LEFT_ALONE = 255  # exit status: no mistake of the operator's, so a restart helps


class NewMaster(Policy):
    """This master as the new one of an upgrade; one that was started without an old one never does anything here.

    `reload` is called when the old one was asked for a reload that it leaves to this one, `stop` (graceful, restart)
    when it stops and takes this one along, or died before it handed over, `promoted` when it has ended.

    described: what the old master said of each listener that it passed on, in their order; None without an old master.
    queue: the two ends of the adoption queue, from the old master; [] without one.
    counters: its memory of counters, one descriptor; [] without one.
    """

    def __init__(
        self,
        parts: Parts,
        handover: Handover | None,
        reload: Callable[[], None],
        stop: Callable[[bool, bool], None],
        promoted: Callable[[], None],
    ) -> None:
        super().__init__(parts)
        self._handover = handover
        self._reload = reload
        self._stop = stop
        self._promoted = promoted
        self._is_main = False
        self._ends_by: float | None = None  # when the old one is killed
        self._followed = 0  # reloads of the old one's
        self.left_alone = False
        """Whether the old one died before it handed over, and this one leaves: others still finish requests."""
        self._process: PidFd | None = None
        self._early: deque[dict[str, Any]] = deque()  # what the old master has said before this one listens
        self.described: list[dict[str, Any]] | None = None
        self.queue: list[int] = []
        self.counters: list[int] = []
        if handover is None:
            return
        hello = handover.receive() or {}
        self.described = hello.get("listeners", [])
        self.queue = hello.get("fds", [])
        if hello.get("counters") and (second := handover.receive()) is not None:
            self.counters = second.get("fds", [])
        parent = handover.peer_pid()
        with suppress(ProcessLookupError):  # it died meanwhile
            self._process = self._host.process(parent)
            self._service.master_pid = parent

    @property
    def parent_drains(self) -> bool:
        """Whether the old master finishes requests: when the main process ends, systemd kills what is left."""
        return self._is_main and bool(self._service.master_pid)

    @property
    def awaited(self) -> str:
        """Why an upgrade has to wait for the old master, and for how long; "" if it does not drain."""
        if not self.parent_drains:
            return ""
        service, until = self._service, self._ends_by
        limit = "" if until is None else f"; it has at most {max(0, math.ceil(until - service.loop.now()))} s"
        return f"the old master (pid {service.master_pid}) still drains, the upgrade follows{limit}"

    def listen(self) -> None:
        """Starts to hear the old master."""
        if self._handover is None:
            return
        if self._process is None:
            self.promote()
            return
        self._service.loop.watch(self._handover, self._hear)
        self._service.loop.watch(self._process, self._ended)
        if self._early:
            self._hear()

    def look_ahead(self) -> None:
        """Before this one listens: takes what the old master has opened for a reload of its own since it executed this
        one, and has now, so that nobody else can. Whatever else it says waits."""
        while self._handover is not None and (message := self._handover.receive()) is not None:
            if message["type"] == "gone":  # as it will say again
                return
            if message["type"] == "reload":
                self._addresses.leave(self._opened(message))
                message = {"type": "reload", "fds": []}
            self._early.append(message)

    def _next(self) -> dict[str, Any] | None:
        """The next message of the old master."""
        if self._early:
            return self._early.popleft()
        return self._handover.receive() if self._handover is not None else None

    def serves(self) -> None:
        """The workers here serve: the old master is told, and how many of its reloads they have followed."""
        if self._handover is not None:
            self._handover.send("ready", status=self._service.status_line(), reloads=self._followed)

    def ends(self, restart: bool) -> None:
        """Tells the old master that this one was told to stop, and that nobody else serves on.

        It is continued if somebody has stopped it, as systemd does with whom it ends: this one waits for it.
        """
        if self._handover is not None:
            self._handover.send("ending", restart=restart, drains_for=self._service.children.timeout())
            if self.parent_drains and self._process is not None:
                self._process.send(signal.SIGCONT)

    def failed(self, reason: str) -> None:
        """Tells the old master why this one ends."""
        if self._handover is not None:
            self._handover.send("failed", reason=reason)

    def _hear(self) -> None:
        while self._handover is not None and (message := self._next()) is not None:
            if message["type"] == "control":
                for fd in message["fds"]:
                    self._control.adopt(self._host.adopt(fd, "", message["control"]))
            elif message["type"] == "main":
                opened = self._opened(message)
                self._service.observed += [each for each in opened if each.name in OBSERVED]
                self._become_main()
                self._addresses.leave(each for each in opened if each.name not in OBSERVED)  # for a reload that follows
                self._bound(message.get("drains_for"))
            elif message["type"] == "heard" and self._is_main:
                self._announce()
                self._bound(message.get("drains_for"))
            elif message["type"] == "stop":
                self._is_main = False
                self._manager.main.goes()
                self._stop(message["graceful"], message["restart"])
            elif message["type"] == "reload" and self._is_main:
                self._reload()
            elif message["type"] == "reload":
                self._addresses.leave(self._opened(message))  # there for the reload that follows
                self._commands.table()["reload"](Call(self._reloaded))
            elif message["type"] == "gone":
                self._service.loop.unwatch(self._handover)
                return
            else:  # an older sdserve's, or a newer one's
                for fd in message["fds"]:
                    os.close(fd)

    def _opened(self, message: dict[str, Any]) -> list[Listener]:
        """What the old master has opened since it executed this one; an older sdserve passes nothing more."""
        fds, described = message["fds"], message.get("listeners", [])
        if len(fds) != len(described):
            self._service.log.warning("Listeners of the old master are lost: this process may open no more descriptors")
            for fd in fds:
                os.close(fd)
            return []
        opened = [self._host.adopt(fd, told.get("name", ""), told) for fd, told in zip(fds, described, strict=True)]
        self._addresses.share(opened)
        return opened

    def _reloaded(self, outcome: Message) -> bool:
        """A reload has ended that the old master had asked for, to follow one of its own. Nobody hears another one."""
        if not outcome.failure:
            self._followed += 1
            self.serves()
        else:
            loop = self._service.loop
            loop.call_at(loop.now(), lambda: self._cannot_follow(outcome.text))
        return False

    def _cannot_follow(self, trouble: str) -> None:
        """The old master serves newer code, and goes on; unless it has gone meanwhile, or has handed over."""
        service = self._service
        if self._is_main or not service.master_pid or service.state in LEAVING:
            return
        reason = f"the new master could not follow a reload: {trouble}"
        service.exit_status = BootError.exit_code
        service.log.event(events.FAILED, REASON=reason, EXIT_STATUS=service.exit_status)
        self.failed(reason)
        self._stop(True, False)

    def _become_main(self) -> None:
        service = self._service
        self._is_main = True
        service.came_to("upgrade succeeded")
        self._control.keep_open(service.cfg.control_socket)
        self._observation.keep_open()
        self._announce()
        self._addresses.alone()
        service.log.info("This master (pid %s) is the main process now", service.pid)

    def _announce(self) -> None:
        """What systemd is to know of this master; again, where it did not know yet that this is the main process."""
        self._manager.become_main(stopping=self._service.state in LEAVING)
        self._pool.store_queue(self._manager.notifier)

    def _bound(self, seconds: float | None) -> None:
        """The old master has so long to end, by its own word: none, while its end would be that of the service."""
        if seconds is not None:
            limit = seconds + AFTER_WORKERS  # its loop does not turn any more then
            self._ends_by = self._service.loop.now() + limit
            self._service.loop.call_at(self._ends_by, lambda: self._kill(limit))

    def _kill(self, seconds: float) -> None:
        if self._process is not None:
            pid = self._service.master_pid
            self._service.log.event(events.OLD_MASTER_KILLED, OLD_MASTER_PID=pid, SECONDS=seconds)
            self._process.send(signal.SIGKILL)

    def _ended(self) -> None:
        self._hear()
        self._service.loop.drop(self._handover, self._process)
        self._process = None
        self._service.master_pid = 0
        self.promote()

    def promote(self) -> None:
        """Takes what the old master held by name, if it has ended."""
        service = self._service
        if self._handover is None or service.master_pid:
            return
        self._handover = None
        service.log.event(events.PROMOTED)
        self._claim.promote()
        self._addresses.alone()
        self._host.title(service.title)
        if self._is_main or service.state in LEAVING:
            pass
        elif is_main_process(service.launched_with, service.pid):
            # systemd listens to the main process only, and that is dead: it can take us for nothing but a leftover. Or
            # it has just been told of us, which we cannot know: then our exit status is the one that counts.
            service.log.event(events.OLD_MASTER_DIED)
            service.exit_status = LEFT_ALONE
            self.left_alone = True
            self._stop(True, True)
        else:
            self._control.keep_open(service.cfg.control_socket)
            self._observation.keep_open()
            self._manager.become_main()
        self._pool.share()  # what the old one's workers had is with whoever was there first
        self._promoted()
