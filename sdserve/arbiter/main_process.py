"""Which process is the unit's main one, as far as this master knows.

systemd hears that from the main process alone (NotifyAccess=main), by MAINPID=. Until it has heard, the end of this
process is that of the service. Until it has done with what it had sent before, its signals mean the service, though
they come here. So there are two states on the way from one main process to the other.
"""

from collections.abc import Mapping
from enum import Enum
from functools import partial
from typing import Protocol

from sdserve.arbiter.lifecycle import advance
from sdserve.arbiter.loop import Loop
from sdserve.systemd.notify import Barrier, Notifier


class Heir(Protocol):
    """A new master that becomes the main process."""

    @property
    def alive(self) -> bool: ...

    def is_heard(self) -> None:
        """systemd takes it for the main process only from now on."""


class Main(Enum):
    ANOTHER = "another"  # what this process says is not heard
    OURS = "ours"
    OWED = "owed"  # a new one, of which systemd could not be told yet
    TOLD = "told"  # a new one: what systemd sends to its main process may still come here


class Event(Enum):
    COMES = "this process takes over"
    FAILS = "another one takes over, of which systemd could not be told"
    TELLS = "systemd has been told"
    HEARS = "systemd has done with all that it had sent before"
    STAYS = "the unit is being stopped: systemd keeps the one that it has"
    GOES = "the old one stays for that reason"


M, E = Main, Event
MOVES: Mapping[Main, Mapping[Event, Main]] = {
    M.ANOTHER: {E.COMES: M.OURS, E.GOES: M.ANOTHER},
    M.OURS: {E.COMES: M.OURS, E.FAILS: M.OWED, E.TELLS: M.TOLD, E.HEARS: M.OURS, E.STAYS: M.OURS, E.GOES: M.ANOTHER},
    M.OWED: {E.TELLS: M.TOLD, E.STAYS: M.OURS},
    M.TOLD: {E.HEARS: M.ANOTHER, E.STAYS: M.OURS},
}


class MainProcess:
    """One master's view. A process that is not the main one says nothing to systemd: `notifier` is muted."""

    def __init__(self, loop: Loop, notifier: Notifier) -> None:
        self._loop = loop
        self._notifier = notifier
        self._state = Main.ANOTHER if notifier.muted else Main.OURS
        self._heir: Heir | None = None

    @property
    def is_owed(self) -> bool:
        """Whether systemd has not heard of a new one, which lives: our end would be that of the service."""
        return self._state is Main.OWED and self._heir is not None and self._heir.alive

    @property
    def may_be_ours(self) -> bool:
        """Whether what systemd sends to its main process may come here, though another one has taken over."""
        return self._notifier.enabled and self._state in (Main.OWED, Main.TOLD)

    def comes(self) -> None:
        """This process is it from here on."""
        self._move(Event.COMES)

    def passes_to(self, pid: int, heir: Heir) -> None:
        """Names another one. Where systemd hears of it only afterwards, the heir is told so."""
        self._heir = heir
        self._notifier.main_pid(pid)
        if self._notifier.unsent:
            self._move(Event.FAILS)
        else:
            self._tells()

    def all_is_sent(self) -> None:
        """What systemd could not be told before has reached it."""
        if self._state is Main.OWED and self._heir is not None:
            self._heir.is_heard()
            self._tells()

    def stays(self) -> None:
        """systemd was stopping the unit when it heard of another one: that changes nothing any more."""
        self._notifier.unsent.clear()  # MAINPID= is the last thing that was said, and not true any more
        self._move(Event.STAYS)

    def goes(self) -> None:
        """The old one is it again, to the end of the service."""
        self._move(Event.GOES)

    def _tells(self) -> None:
        """systemd has MAINPID= in its queue: no signal that it sends after that comes here any more."""
        self._move(Event.TELLS)
        barrier = self._notifier.barrier()
        if barrier is None:
            self._move(Event.HEARS)
        else:
            self._loop.watch(barrier, partial(self._passed, barrier))

    def _passed(self, barrier: Barrier) -> None:
        """What systemd had sent before has come, and is handled at the end of this turn."""
        self._loop.unwatch(barrier)
        self._loop.watch(barrier, partial(self._handled, barrier))

    def _handled(self, barrier: Barrier) -> None:
        self._loop.drop(barrier)
        self._move(Event.HEARS)

    def _move(self, event: Event) -> None:
        self._state = advance(MOVES, self._state, event)
        self._notifier.muted = self._state is not Main.OURS
