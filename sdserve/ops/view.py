"""What a service is doing now and has counted, as one value: read from memory that its processes share.

Nobody is asked: that works while every worker is busy, stuck or stopped, and while the master is.
"""

import os
from collections.abc import Callable

from sdserve.immutable import Immutable
from sdserve.process.counter_memory import CounterMemory
from sdserve.process.counters import (
    BUSY,
    GENERATION,
    INDEX,
    MASTER,
    OPEN,
    PID,
    SLOT,
    STOPPED,
    THREADS,
    WANTED,
    CounterCell,
    Totals,
)
from sdserve.process.scoreboard import REQUESTS, Scoreboard

WORKER_STATES = ("booting", "serving", "retiring", "stopped", "ending")
MOST_PID = 2**22  # proc(5), /proc/sys/kernel/pid_max
_SHOWN = {"aborted": "ending", "killed": "ending"}


class WorkerView(Immutable):
    """One worker.

    state: one of WORKER_STATES; stopped: by SIGSTOP or a tracer
    ours: whether it is a worker of the master that is looked at, not of one before it
    age: seconds since the fork
    threads: how many call the application, 0 if an event loop does
    calls: how many requests the application has now
    connections: how many are open
    requests: how many it has answered, None if it is not ours
    busy: seconds since it last looked at its sockets, 0.0 at rest
    """

    pid: int
    slot: int
    generation: int
    state: str
    ours: bool
    age: float
    threads: int
    calls: int
    connections: int
    requests: int | None
    busy: float


class View(Immutable):
    """A service. `state` is its master's, one of counters.STATES; `began` and `created` are seconds since the epoch."""

    state: str
    generation: int
    wanted: int
    began: float
    created: float
    workers: tuple[WorkerView, ...]
    totals: Totals

    @property
    def serving(self) -> int:
        """How many workers can take a request."""
        return sum(1 for worker in self.workers if worker.ours and worker.state == "serving")


class Watched(Immutable):
    """Where to look: the cell of a master, all cells, and the scoreboard of its workers."""

    master: CounterCell
    counters: CounterMemory
    scoreboard: Scoreboard


def look(at: Watched, now: float, lives: Callable[[int], bool]) -> View:
    """The service at `now` (monotonic seconds). `lives` says whether there is a process of that number."""
    master = at.master
    pid = master.get(PID)
    workers = [
        _worker(cell, at.scoreboard, pid, now)
        for cell in at.counters.cells()
        if cell.get(MASTER) and cell.state and (cell.get(MASTER) == pid or lives(cell.get(PID)))
    ]
    return View(
        state=master.state,
        generation=master.get(GENERATION),
        wanted=master.get(WANTED),
        began=master.began,
        created=at.counters.created,
        workers=tuple(sorted(workers, key=lambda worker: (not worker.ours, worker.slot, worker.age))),
        totals=at.counters.totals(),
    )


def _worker(cell: CounterCell, scoreboard: Scoreboard, master: int, now: float) -> WorkerView:
    ours = cell.get(MASTER) == master
    shared = scoreboard.at(cell.get(INDEX))
    since = shared.busy_since if ours else 0.0
    threads, calls = cell.get(THREADS), cell.get(BUSY)
    if threads == 1:  # it is marked busy while it does not poll, and counts nothing else
        calls = 1 if since else 0
    return WorkerView(
        pid=cell.get(PID),
        slot=cell.get(SLOT),
        generation=cell.get(GENERATION),
        state="stopped" if cell.get(STOPPED) else _SHOWN.get(cell.state, cell.state),
        ours=ours,
        age=max(0.0, now - cell.born),
        threads=threads,
        calls=calls,
        connections=max(cell.get(OPEN), calls),  # it counts them when it looks at its sockets
        requests=shared.word(REQUESTS) if ours else None,
        busy=max(0.0, now - since) if since else 0.0,
    )


def lives(pid: int) -> bool:
    """Whether there is a process of that number, which may be anything: a broken worker may have written it."""
    if not 0 < pid <= MOST_PID:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True
