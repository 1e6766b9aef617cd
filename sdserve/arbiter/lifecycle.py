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
    DROPPED = "dropped"  # it was too slow, is not wanted any more or leaves by itself, and has still to end
    SERVING = "serving"  # its workers serve beside ours
    HANDED_OVER = "handed over"  # it is the main process; we drain
    ENDING = "ending"  # it ends as we do: the service is being stopped


class UpgradeEvent(Enum):
    REEXEC = "reexec"
    READY = "ready"
    DROP = "drop"
    HAND_OVER = "hand over"
    END = "end"  # it was told to stop
    LOST = "lost"  # it failed, was dropped, or died


State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)
Table = Mapping[State, Mapping[Event, State]]

M, E = Master, MasterEvent
MASTER: Table[Master, MasterEvent] = {
    M.STARTING: {E.SERVES: M.RUNNING, E.STOP: M.STOPPING, E.CRASH: M.DOWN},
    M.RUNNING: {E.RELOAD: M.RELOADING, E.STOP: M.STOPPING, E.HAND_OVER: M.HANDING_OVER, E.CRASH: M.DOWN},
    M.RELOADING: {
        E.RELOADED: M.RUNNING,
        E.ROLLED_BACK: M.RUNNING,
        E.STOP: M.STOPPING,
        E.HAND_OVER: M.HANDING_OVER,
        E.CRASH: M.DOWN,
    },
    M.HANDING_OVER: {E.STOP: M.HANDING_OVER, E.EMPTY: M.DOWN, E.CRASH: M.DOWN},
    M.STOPPING: {E.STOP: M.STOPPING, E.EMPTY: M.DOWN, E.CRASH: M.DOWN},
    M.DOWN: {},
}

P, W = Phase, WorkerEvent
WORKER: Table[Phase, WorkerEvent] = {
    P.BOOTING: {W.READY: P.SERVING, W.RETIRE: P.RETIRING, W.HANG: P.ABORTED, W.EXIT: P.GONE},
    P.SERVING: {W.RETIRE: P.RETIRING, W.HANG: P.ABORTED, W.KILL: P.KILLED, W.EXIT: P.GONE},
    P.RETIRING: {W.RETIRE: P.RETIRING, W.HANG: P.ABORTED, W.KILL: P.KILLED, W.EXIT: P.GONE},
    P.ABORTED: {W.RETIRE: P.ABORTED, W.KILL: P.KILLED, W.EXIT: P.GONE},
    P.KILLED: {W.RETIRE: P.KILLED, W.KILL: P.KILLED, W.EXIT: P.GONE},  # it may take its time, in the kernel
    P.GONE: {},
}

U, V = Upgrade, UpgradeEvent
UPGRADE: Table[Upgrade, UpgradeEvent] = {
    U.NONE: {V.REEXEC: U.BOOTING},
    U.BOOTING: {V.READY: U.SERVING, V.DROP: U.DROPPED, V.LOST: U.NONE},
    U.DROPPED: {V.LOST: U.NONE},
    U.SERVING: {V.HAND_OVER: U.HANDED_OVER, V.END: U.DROPPED, V.LOST: U.NONE},
    U.HANDED_OVER: {V.END: U.ENDING, V.LOST: U.HANDED_OVER},  # too late to take the unit back: systemd watches it now
    U.ENDING: {V.END: U.ENDING, V.LOST: U.ENDING},
}

AFTER_WORKERS = 5.0  # seconds that a master has for what comes after its workers, on_exit for one
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
