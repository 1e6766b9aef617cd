"""Who of several threads leads, who follows, who is in the application: moves, free of threads, locks and clocks.

    idle ──────► leads ◄──► holds the token     the leader calls the application, and leads on when the call returns
     ▲  │          │              │
     │  ▼          ▼              ▼
     └─ works ◄────┴──────────────┘             a call without the lead, or a job: the lead was given up, or taken

One thread polls: the leader. Before it calls the application it puts the token of the call on the table. Whoever takes
the token away decides: the leader itself when the call returns (it leads on), or `promote` when the call lasts (another
thread leads). A token is the call's own: a call that returns takes its token or none, never that of another call.

A *job* is work that one certain thread should do. It waits for that thread, which does it before it rests.

A thread may hold responses that wait for their clients, and with them whatever the application has locked. A call that
waited for such a lock in that very thread would wait for ever, so calls go to threads that hold none, if one is idle:
the lead passes to these first, and a leader that holds some hands the lead over together with the call (`hand_over`).

All methods are called under one lock, except for the leader's two moves at the table, `put` and `take`, which are one
atomic step of a dictionary each. Methods return the threads that must be woken.
"""

from collections import deque
from collections.abc import Hashable, Iterator
from enum import Enum
from typing import Generic, TypeVar

Call = TypeVar("Call", bound=Hashable)
Job = TypeVar("Job")


class Next(Enum):
    """What a thread that has nothing to do does next, besides a job."""

    LEAD = "lead"
    WAIT = "wait"
    LEAVE = "leave"


class Seat(Generic[Job]):
    """One thread's place among the others."""

    __slots__ = ("held", "jobs", "lost")

    def __init__(self) -> None:
        self.held: set[object] = set()  # responses that were begun here, and wait
        self.jobs: deque[Job] = deque()  # for this thread alone
        self.lost = False  # it is stuck, or has ended: nothing waits for it


class Taken(Generic[Call, Job]):
    """A call from which the lead was taken: since when it runs, and where."""

    __slots__ = ("call", "seat", "since")

    def __init__(self, call: Call, since: float, seat: Seat[Job]) -> None:
        self.call = call
        self.since = since
        self.seat = seat


class Roster(Generic[Call, Job]):
    """`leader` is None when every thread works: the first that rests leads."""

    __slots__ = ("idle", "leader", "orphans", "seats", "stopped", "table")

    def __init__(self) -> None:
        self.table: dict[Call, float] = {}  # the leader's call, with the time when it began
        self.leader: Seat[Job] | None = None
        self.seats: set[Seat[Job]] = set()
        self.idle: list[Seat[Job]] = []  # the last to rest is the first to be woken: its caches are warm
        self.orphans: deque[Job] = deque()  # jobs whose thread is lost, for whoever comes first
        self.stopped = False

    # --- the leader's moves at the table: leader_followers.py has them in line -------------------------------------

    def put(self, call: Call, now: float) -> None:
        """The leader begins a call, and keeps the lead until somebody takes the token."""
        self.table[call] = now

    def take(self, call: Call) -> bool:
        """The call has returned. Whether its thread still leads."""
        return self.table.pop(call, None) is not None

    # --- under the lock --------------------------------------------------------------------------------------------

    def join(self, seat: Seat[Job]) -> None:
        """A thread more."""
        self.seats.add(seat)

    def rest(self, seat: Seat[Job]) -> Next | Job:
        """A thread has nothing to do, or was woken: what it does next. Its own jobs come first."""
        if self.stopped:
            return Next.LEAVE
        if seat.jobs:
            return seat.jobs.popleft()
        if self.leader is None:
            self.leader = seat
        if self.leader is seat:
            return Next.LEAD
        if self.orphans:
            return self.orphans.popleft()
        self.idle.append(seat)
        return Next.WAIT

    def pass_on(self) -> list[Seat[Job]]:
        """The leader gives up the lead, or has it taken away; nobody has it when nobody is idle."""
        self.leader = None
        if self.idle:
            self.leader = next((seat for seat in reversed(self.idle) if not seat.held), self.idle[-1])
            self.idle.remove(self.leader)
        return [] if self.leader is None else [self.leader]

    def hand_over(self, job: Job) -> list[Seat[Job]]:
        """The leader gives an idle thread that holds no response the lead, and a call as its first job; [] if none is.

        That thread begins its job with the lead, and puts the token on the table as for any call.
        """
        if all(seat.held for seat in self.idle):
            return []
        woken = self.pass_on()
        woken[0].jobs.append(job)
        return woken

    def promote(self) -> tuple[Taken[Call, Job] | None, list[Seat[Job]]]:
        """Takes the token of the leader's call, and the lead with it; (None, []) when no call is in progress."""
        seat = self.leader
        try:
            call, since = self.table.popitem()
        except KeyError:  # it returned just now
            return None, []
        assert seat is not None, "a token without a leader"
        return Taken(call, since, seat), self.pass_on()

    def assign(self, job: Job, seat: Seat[Job] | None) -> tuple[bool, list[Seat[Job]]]:
        """The leader has a job for a thread. (True, []): that is the leader itself, or nobody any more: do it here."""
        if seat is None or seat.lost or seat is self.leader:
            return True, []
        seat.jobs.append(job)
        if seat in self.idle:
            self.idle.remove(seat)
            return False, [seat]
        return False, []

    def lose(self, seat: Seat[Job]) -> list[Seat[Job]]:
        """A thread is stuck: its jobs go to those that are idle, and the others wait for whoever comes first."""
        seat.lost = True
        return self.share_out(seat)

    def share_out(self, seat: Seat[Job]) -> list[Seat[Job]]:
        """Takes the jobs of a thread that does not come, for others to do."""
        woken = []
        while seat.jobs:
            job = seat.jobs.popleft()
            if self.idle:
                woken.append(self.idle.pop())
                woken[-1].jobs.append(job)
            else:
                self.orphans.append(job)
        return woken

    def found(self, seat: Seat[Job]) -> None:
        """A stuck thread has come back."""
        seat.lost = False

    def leave(self, seat: Seat[Job]) -> list[Seat[Job]]:
        """A thread ends, whatever it did: it takes neither the lead nor a job with it."""
        self.seats.discard(seat)
        if seat in self.idle:
            self.idle.remove(seat)
        if self.leader is seat:
            self.table.clear()
            woken = self.pass_on()
        else:
            woken = []
        return woken + self.lose(seat)

    def stop(self) -> list[Seat[Job]]:
        """Nobody leads any more."""
        self.stopped = True
        self.leader = None
        self.table.clear()
        woken, self.idle = self.idle, []
        return woken

    def waiting(self) -> Iterator[Job]:
        """The jobs that wait for a thread that has something else to do."""
        for seat in self.seats:
            yield from seat.jobs
