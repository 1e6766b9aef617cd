"""The states of masters, workers and upgrades, as tables.

`advance` is the one door for a change of state: a move that the table does not have is a bug and raises.
"""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar


class Master(Enum):
    """What a master is doing."""

    STARTING = "starting"  # the first generation boots, nobody serves yet
    RUNNING = "running"
    RELOADING = "reloading"  # a new generation boots while the old one serves
    HANDING_OVER = "handing over"  # a new master serves and is the main process; workers here finish what they hold
    STOPPING = "stopping"  # workers finish what they hold, and nobody follows from here
    DOWN = "down"


class MasterEvent(Enum):
    SERVES = "first generation serves"
    RELOAD = "reload"
    RELOADED = "new generation serves"
    ROLLED_BACK = "new generation failed"
    STOP = "stop"
    HAND_OVER = "stop while a new master serves"
    EMPTY = "last worker gone"
    CRASH = "error of its own"


class Phase(Enum):
    """What the master knows of a worker."""

    BOOTING = "booting"
    SERVING = "serving"
    RETIRING = "retiring"  # was told to finish and leave
    ABORTED = "aborted"  # exceeded a time-out and was sent SIGABRT
    KILLED = "killed"  # was sent SIGKILL
    GONE = "gone"


class WorkerEvent(Enum):
    READY = "ready"
    RETIRE = "retire"
    HANG = "hang"
    KILL = "kill"
    EXIT = "exit"


class Upgrade(Enum):
    """The old master's view of a re-exec."""

    NONE = "none"
    BOOTING = "booting"  # the new master exists
    DROPPED = "dropped"  # it was too slow or is not wanted any more, and has still to end
    SERVING = "serving"  # its workers serve beside ours
    HANDED_OVER = "handed over"  # it is the main process; we drain


class UpgradeEvent(Enum):
    REEXEC = "reexec"
    READY = "ready"
    DROP = "drop"
    HAND_OVER = "hand over"
    LOST = "lost"  # it failed, was dropped, or died


State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)
Table = Mapping[State, Mapping[Event, State]]

MASTER: Table[Master, MasterEvent] = {
    Master.STARTING: {
        MasterEvent.SERVES: Master.RUNNING,
        MasterEvent.STOP: Master.STOPPING,
        MasterEvent.CRASH: Master.DOWN,
    },
    Master.RUNNING: {
        MasterEvent.RELOAD: Master.RELOADING,
        MasterEvent.STOP: Master.STOPPING,
        MasterEvent.HAND_OVER: Master.HANDING_OVER,
        MasterEvent.CRASH: Master.DOWN,
    },
    Master.RELOADING: {
        MasterEvent.RELOADED: Master.RUNNING,
        MasterEvent.ROLLED_BACK: Master.RUNNING,
        MasterEvent.STOP: Master.STOPPING,
        MasterEvent.HAND_OVER: Master.HANDING_OVER,
        MasterEvent.CRASH: Master.DOWN,
    },
    Master.HANDING_OVER: {
        MasterEvent.STOP: Master.HANDING_OVER,
        MasterEvent.EMPTY: Master.DOWN,
        MasterEvent.CRASH: Master.DOWN,
    },
    Master.STOPPING: {
        MasterEvent.STOP: Master.STOPPING,
        MasterEvent.EMPTY: Master.DOWN,
        MasterEvent.CRASH: Master.DOWN,
    },
    Master.DOWN: {},
}

WORKER: Table[Phase, WorkerEvent] = {
    Phase.BOOTING: {
        WorkerEvent.READY: Phase.SERVING,
        WorkerEvent.RETIRE: Phase.RETIRING,
        WorkerEvent.HANG: Phase.ABORTED,
        WorkerEvent.EXIT: Phase.GONE,
    },
    Phase.SERVING: {
        WorkerEvent.RETIRE: Phase.RETIRING,
        WorkerEvent.HANG: Phase.ABORTED,
        WorkerEvent.KILL: Phase.KILLED,
        WorkerEvent.EXIT: Phase.GONE,
    },
    Phase.RETIRING: {
        WorkerEvent.RETIRE: Phase.RETIRING,
        WorkerEvent.HANG: Phase.ABORTED,
        WorkerEvent.KILL: Phase.KILLED,
        WorkerEvent.EXIT: Phase.GONE,
    },
    Phase.ABORTED: {
        WorkerEvent.RETIRE: Phase.ABORTED,
        WorkerEvent.KILL: Phase.KILLED,
        WorkerEvent.EXIT: Phase.GONE,
    },
    Phase.KILLED: {
        WorkerEvent.RETIRE: Phase.KILLED,
        WorkerEvent.KILL: Phase.KILLED,  # it takes its time, in the kernel
        WorkerEvent.EXIT: Phase.GONE,
    },
    Phase.GONE: {},
}

UPGRADE: Table[Upgrade, UpgradeEvent] = {
    Upgrade.NONE: {
        UpgradeEvent.REEXEC: Upgrade.BOOTING,
    },
    Upgrade.BOOTING: {
        UpgradeEvent.READY: Upgrade.SERVING,
        UpgradeEvent.DROP: Upgrade.DROPPED,
        UpgradeEvent.LOST: Upgrade.NONE,
    },
    Upgrade.DROPPED: {
        UpgradeEvent.LOST: Upgrade.NONE,
    },
    Upgrade.SERVING: {
        UpgradeEvent.HAND_OVER: Upgrade.HANDED_OVER,
        UpgradeEvent.LOST: Upgrade.NONE,
    },
    Upgrade.HANDED_OVER: {
        UpgradeEvent.LOST: Upgrade.HANDED_OVER,  # too late to take the unit back: systemd watches it now
    },
}

LEAVING = (Master.HANDING_OVER, Master.STOPPING)  # the workers leave, and the master follows them


class IllegalMoveError(Exception):
    """A state was asked to do what its table does not have."""


def advance(table: Table[State, Event], state: State, event: Event) -> State:
    """The state after `event`. Raises IllegalMoveError."""
    try:
        return table[state][event]
    except KeyError:
        raise IllegalMoveError(f"{type(state).__name__} {state.value}: no move for {event.value!r}") from None


def allows(table: Table[State, Event], state: State, event: Event) -> bool:
    return event in table[state]
