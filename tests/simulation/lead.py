"""Threads that share a lead, as a state machine: the real roster, and each atomic step that a thread can make.

A state is a value: where each thread is, what the roster holds, which calls are known to run. From each state `moves`
names all that can happen next, in whatever order the interpreter lets threads run, and the watcher look. What is one
step here is one step in sdserve/workers/wsgi/roster.py: what happens under its lock, or one operation of a dictionary.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from sdserve.workers.wsgi.roster import Next, Roster, Seat


class At(Enum):
    """Where a thread is."""

    REST = "has nothing to do"
    ASLEEP = "waits for its bell"
    LEADS = "polls"
    BEGINS = "leads, and begins a step of its own"
    CALL = "is in a call that began with the lead"
    LOST = "has returned from it, and found the token gone"
    APART = "is in a call without the lead"
    GONE = "has ended"


@dataclass(frozen=True)
class Thread:
    at: At = At.REST
    stream: str = ""  # whose call it is in
    bell: int = 0
    lost: bool = False
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    threads: tuple[Thread, ...]
    free: frozenset[str]  # streams that no call and no job has
    streams: int  # all of them
    idle: tuple[int, ...] = ()
    leader: int = -1
    table: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    running: frozenset[tuple[str, int]] = frozenset()
    stuck: frozenset[str] = frozenset()
    stopped: bool = False


def begin(threads: int, streams: str) -> State:
    return State((Thread(),) * threads, frozenset(streams), len(streams))


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass
class World:
    """A state, taken apart so that something can happen in it."""

    state: State
    kind: type[Roster[str, str]]
    roster: Roster[str, str] = field(init=False)
    seats: list[Seat[str]] = field(init=False)

    def __post_init__(self) -> None:
        state = self.state
        self.threads = list(state.threads)
        self.free, self.running, self.stuck = set(state.free), dict(state.running), set(state.stuck)
        self.roster = roster = self.kind()
        self.seats = [Seat() for _ in state.threads]
        for seat, thread in zip(self.seats, state.threads, strict=True):
            seat.jobs, seat.lost = deque(thread.jobs), thread.lost
            if thread.at is not At.GONE:
                roster.join(seat)
        roster.idle.extend(self.seats[number] for number in state.idle)
        roster.leader = self.seats[state.leader] if state.leader >= 0 else None
        roster.table.update(dict.fromkeys(state.table, 1.0))
        roster.orphans.extend(state.orphans)
        roster.stopped = state.stopped

    def put(self, number: int, at: At, stream: str = "") -> None:
        self.threads[number] = replace(self.threads[number], at=at, stream=stream)

    def ring(self, seats: list[Seat[str]]) -> None:
        for seat in seats:
            number = self.seats.index(seat)
            thread = self.threads[number]
            if thread.bell:
                raise Broken(f"the bell of thread {number} is rung twice")
            self.threads[number] = replace(thread, bell=1)

    def comes_back(self, number: int, stream: str) -> None:
        """The end of a call without the lead."""
        if self.running.pop(stream, None) is None and not self.roster.stopped:
            raise Broken(f"the call of {stream} has run and nobody knew: had it hung, nobody would have named it")
        if stream in self.stuck:
            self.stuck.discard(stream)
            self.roster.found(self.seats[number])
        self.give_back(stream)
        self.put(number, At.REST)

    def give_back(self, stream: str) -> None:
        if stream in self.free:
            raise Broken(f"{stream} is given back twice")
        self.free.add(stream)

    def after(self) -> State:
        roster, seats = self.roster, self.seats
        threads = tuple(
            replace(thread, lost=seat.lost, jobs=tuple(seat.jobs))
            for thread, seat in zip(self.threads, seats, strict=True)
        )
        return State(
            threads,
            frozenset(self.free),
            self.state.streams,
            tuple(seats.index(seat) for seat in roster.idle),
            -1 if roster.leader is None else seats.index(roster.leader),
            tuple(roster.table),
            tuple(roster.orphans),
            frozenset(self.running.items()),
            frozenset(self.stuck),
            roster.stopped,
        )


# --- what threads do --------------------------------------------------------------------------------------------------


def rests(world: World, number: int) -> None:
    task = world.roster.rest(world.seats[number])
    if isinstance(task, str) and world.roster.leader is world.seats[number]:
        world.put(number, At.BEGINS, task)
    elif isinstance(task, str):
        world.running[task] = number
        world.put(number, At.APART, task)
    else:
        world.put(number, {Next.LEAD: At.LEADS, Next.WAIT: At.ASLEEP, Next.LEAVE: At.GONE}[task])


def wakes(world: World, number: int) -> None:
    world.threads[number] = replace(world.threads[number], bell=0)
    world.put(number, At.REST)


def calls(world: World, number: int, stream: str) -> None:
    world.free.discard(stream)
    world.roster.put(stream, 1.0)
    world.put(number, At.CALL, stream)


def gives_up(world: World, number: int, stream: str) -> None:
    world.free.discard(stream)
    world.running[stream] = number
    world.ring(world.roster.pass_on())
    world.put(number, At.APART, stream)


def hands_over(world: World, number: int, stream: str) -> None:
    woken = world.roster.hand_over(stream)
    world.ring(woken)
    if woken:
        world.free.discard(stream)
        world.put(number, At.REST)


def resumes(world: World, number: int, stream: str, owner: int) -> None:
    world.free.discard(stream)
    seat = world.seats[owner] if world.threads[owner].at is not At.GONE else None
    here, woken = world.roster.assign(stream, seat)
    world.ring(woken)
    if here:
        world.put(number, At.BEGINS, stream)


def takes_orphan(world: World, number: int) -> None:
    world.put(number, At.BEGINS, world.roster.orphans.popleft())


def begins(world: World, number: int, stream: str) -> None:
    world.roster.put(stream, 1.0)
    world.put(number, At.CALL, stream)


def returns(world: World, number: int, stream: str) -> None:
    if world.roster.take(stream):
        world.give_back(stream)
        world.put(number, At.LEADS)
    else:
        world.put(number, At.LOST, stream)


def stops(world: World, number: int) -> None:
    world.ring(world.roster.stop())
    world.put(number, At.REST)


def dies(world: World, number: int) -> None:
    world.put(number, At.GONE)
    world.ring(world.roster.leave(world.seats[number]))


# --- what the watcher does --------------------------------------------------------------------------------------------


def promotes(world: World) -> None:
    taken, woken = world.roster.promote()
    if taken is not None:
        world.running[taken.call] = world.seats.index(taken.seat)
    world.ring(woken)


def names(world: World, stream: str) -> None:
    """The time-out of a call is over."""
    world.stuck.add(stream)
    world.ring(world.roster.lose(world.seats[world.running[stream]]))


def shares_out(world: World, number: int) -> None:
    world.ring(world.roster.share_out(world.seats[number]))


def hires(world: World, number: int) -> None:
    world.threads[number] = Thread()
    world.seats[number].lost = False


Move = tuple[Callable[..., None], tuple[int | str, ...]]


def moves(state: State) -> Iterator[Move]:
    """All that can happen next."""
    for number, thread in enumerate(state.threads):
        if thread.at is At.REST:
            yield rests, (number,)
            yield dies, (number,)
        elif thread.at is At.ASLEEP and thread.bell:
            yield wakes, (number,)
        elif thread.at is At.BEGINS:
            yield begins, (number, thread.stream)
        elif thread.at is At.CALL:
            yield returns, (number, thread.stream)
        elif thread.at in (At.LOST, At.APART):
            yield World.comes_back, (number, thread.stream)
        elif thread.at is At.GONE and not state.stopped:
            yield hires, (number,)
        elif thread.at is At.LEADS:
            yield stops, (number,)
            yield dies, (number,)
            if state.orphans:
                yield takes_orphan, (number,)
            for stream in sorted(state.free):
                yield calls, (number, stream)
                yield gives_up, (number, stream)
                yield hands_over, (number, stream)
                for owner in range(len(state.threads)):
                    yield resumes, (number, stream, owner)
        if thread.jobs:
            yield shares_out, (number,)
    if state.table:
        yield promotes, ()
    for stream, _ in sorted(state.running):
        if stream not in state.stuck:
            yield names, (stream,)


def step(state: State, move: Move, kind: type[Roster[str, str]] = Roster) -> State:
    """What comes of one move. Raises Broken when a promise was not kept."""
    world = World(state, kind)
    action, arguments = move
    action(world, *arguments)
    result = world.after()
    check(result)
    return result


# --- the promises -----------------------------------------------------------------------------------------------------


def check(state: State) -> None:
    """What holds in each state, whatever has happened. Raises Broken."""
    threads = state.threads
    polls = [number for number, thread in enumerate(threads) if thread.at in (At.LEADS, At.BEGINS)]
    hold = [number for number, thread in enumerate(threads) if thread.at is At.CALL and thread.stream in state.table]
    if len(polls) + len(hold) > 1:
        raise Broken(f"threads {polls + hold} lead")
    if len(hold) != len(state.table):
        raise Broken(f"the token {state.table} is nobody's")
    if state.stopped:
        return
    for number in polls + hold:
        if state.leader != number:
            raise Broken(f"thread {number} leads, and {state.leader} should")
    asleep = [number for number, thread in enumerate(threads) if thread.at is At.ASLEEP and not thread.bell]
    if sorted(state.idle) != asleep:
        raise Broken(f"threads {state.idle} are thought to be idle, and {asleep} are")
    comes = [number for number, thread in enumerate(threads) if will_come(thread)]
    if state.leader >= 0 and state.leader not in polls + hold + comes:
        raise Broken(f"nobody polls: thread {state.leader} should, and is {threads[state.leader]}")
    if state.leader < 0 and asleep:
        raise Broken("nobody polls, and a thread sleeps that could")
    for number, thread in enumerate(threads):
        apart = thread.at is At.APART or (thread.at is At.CALL and number not in hold)
        if apart and dict(state.running).get(thread.stream) != number:
            raise Broken(f"the call of {thread.stream} runs in thread {number}, and would not be named if it hung")
        if thread.jobs and (thread.at is At.GONE or number in asleep):
            raise Broken(f"the jobs {thread.jobs} wait for a thread that does not come")
    queued = [job for thread in threads for job in thread.jobs] + list(state.orphans)
    inside = [thread.stream for thread in threads if thread.stream]
    if sorted([*queued, *inside, *state.free]) != sorted({*queued, *inside, *state.free}):
        raise Broken("a stream is in two places")
    if len(queued) + len(inside) + len(state.free) != state.streams:
        raise Broken("a stream is lost")
    if not inside and (state.running or state.stuck):
        raise Broken("a call that has ended is remembered")


def will_come(thread: Thread) -> bool:
    return thread.at is At.REST or (thread.at is At.ASLEEP and bool(thread.bell))
