"""A simulated master: the real decisions over a process table that exists in memory only.

What is real: `pool.decide`, `Backoff`, the verdict on failed boots, the life-cycle tables. What is simulated: processes
and the clock. The world does to its workers what crew.py does, and to the goal what signals and reloads do; what the
processes do (boot, fail, wear out, hang, die) comes from outside, one `Turn` at a time. A turn is what a turn of the
loop may find: several things at once, then one decision.

After each decision the promises of the design are checked; a broken one raises `Broken` with its name:

served      nobody ends the last worker that can answer
surge       never more workers of the wanted generation than wanted, but for one that replaces another; none of others
recycling   worn workers are replaced one at a time
successor   while workers are replaced, as many serve as before, up to the wanted number
idempotent  deciding again changes nothing, neither at once nor before the time that the decision named
balance     at rest no GPU has more than ceil(size / gpus) workers, and each slot has one
rest        when processes boot and leave as told, the wanted number serves, and nothing else lives
end         a stop ends with an empty table
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from sdserve.arbiter import pool
from sdserve.arbiter.lifecycle import MASTER, WORKER, Master, MasterEvent, Phase, WorkerEvent, advance
from sdserve.arbiter.pool import LIVE, Backoff, Decision, Goal, Kill, Member, Retire, Spawn
from sdserve.arbiter.verdict import Verdict, on_failed_boot

GRACEFUL = 30.0
KILL_AFTER = 1.0
DRAIN_GRACE = 0.5
BOOT_TIMEOUT = 20.0
TIMEOUT = 10.0

Decide = Callable[[Sequence[Member], Goal, Backoff, float], Decision]


class Broken(AssertionError):
    """A promise that was not kept; `promise` is its name."""

    def __init__(self, promise: str, story: str) -> None:
        super().__init__(f"{promise}: {story}")
        self.promise = promise


class What(Enum):
    """What can happen. `who` and `much` of an event say to which worker, and how much."""

    READY = "a booting worker is ready"
    BOOT_FAILS = "a boot fails"
    BOOT_KILLED = "a booting worker is killed from outside"
    DIES = "a worker dies, whatever it is doing"
    LEAVES = "a worker that was told to leave does"
    WORN = "a serving worker asks for its replacement"
    TERMED = "somebody else sends TERM to a serving worker"
    STOPPED = "a serving worker is stopped"
    CONTINUED = "a stopped worker goes on"
    TTIN = "TTIN"
    TTOU = "TTOU"
    WINCH = "WINCH"
    HUP = "HUP"
    TIME = "time passes"


# One event: what, to whom (an index into those whom it can meet), and how much (seconds, workers, GPUs).
Event = tuple[What, int, float]
Turn = Sequence[Event]


@dataclass
class Process:
    """One simulated worker."""

    age: int
    slot: int
    generation: int
    phase: Phase = Phase.BOOTING
    deadline: float | None = None
    worn: bool = False
    stopped: bool = False
    serving_since: float | None = None
    worn_at: float | None = None

    def member(self) -> Member:
        return Member(
            self.age,
            self.slot,
            self.generation,
            self.phase,
            deadline=self.deadline,
            worn=self.worn,
            worn_at=self.worn_at,
            stopped=self.stopped,
        )

    @property
    def answers(self) -> bool:
        return self.phase is Phase.SERVING and not self.stopped

    @property
    def live(self) -> bool:
        return self.phase in LIVE

    def __str__(self) -> str:
        marks = "".join(mark for mark, on in ((" worn", self.worn), (" stopped", self.stopped)) if on)
        return f"{self.age}@{self.slot}/g{self.generation} {self.phase.value}{marks}"


@dataclass
class World:
    """One master from its start. `size`, `gpus`, `surge`, `max_age` are its configuration, `decide` its judgement."""

    size: int
    gpus: int = 1
    surge: int = 0
    max_age: float = 0.0
    decide: Decide = pool.decide
    now: float = 1000.0
    processes: list[Process] = field(default_factory=list)
    backoff: Backoff = field(default_factory=Backoff)
    state: Master = Master.STARTING
    events: int = 0
    ages: int = 0
    wake_at: float | None = None

    def __post_init__(self) -> None:
        self.goal = Goal(self.size, gpus=self.gpus, surge=self.surge)
        self.configured = (self.size, self.gpus)
        self.generations = 1
        self.previous: Goal | None = None
        self.again = False
        self.boot_kills = 0
        self.manage()

    # --- what happens -----------------------------------------------------------------------------------------------

    def turn(self, events: Turn) -> None:
        """All of `events`, then one decision."""
        for what, who, much in events:
            self.events += 1
            self.happens(what, who, much)
        self.manage()

    def happens(self, what: What, who: int = 0, much: float = 0.0) -> None:
        """One event; nothing if there is nobody whom it can meet."""
        if self.state is Master.DOWN:
            return
        if what is What.TIME:
            self.time_passes(much)
        elif what is What.TTIN:
            self.goal = replace(self.goal, size=self.goal.size + 1)
        elif what is What.TTOU:
            self.goal = replace(self.goal, size=max(1, self.goal.size - 1))
        elif what is What.WINCH:
            self.goal = replace(self.goal, size=0)
        elif what is What.HUP:
            self.configured = (1 + who % 6, 1 + int(much) % 4)
            self.reload()
        else:
            met = [each for each in self.processes if MEETS[what](each)]
            if met:
                self.befalls(what, met[who % len(met)])

    def befalls(self, what: What, process: Process) -> None:
        if what is What.READY:
            self.move(process, WorkerEvent.READY)
            self.boot_kills = 0
            process.serving_since = self.now
            process.worn_at = self.now + self.max_age if self.max_age else None
        elif what is What.WORN:
            process.worn = True
        elif what is What.TERMED:
            self.move(process, WorkerEvent.RETIRE, GRACEFUL + DRAIN_GRACE)
        elif what in (What.STOPPED, What.CONTINUED):
            process.stopped = what is What.STOPPED
            process.deadline = self.now + TIMEOUT if process.stopped else None
        else:
            self.ends(process, killed=what in (What.BOOT_KILLED, What.DIES))

    def ends(self, process: Process, *, killed: bool) -> None:
        """A process is gone: what crew.py and the arbiter make of it."""
        was = process.phase
        self.move(process, WorkerEvent.EXIT)
        self.processes.remove(process)
        if was in (Phase.BOOTING, Phase.SERVING, Phase.ABORTED):
            served = None if process.serving_since is None else self.now - process.serving_since
            self.backoff = self.backoff.after_death(served, self.now)
        if process.serving_since is None and was in (Phase.BOOTING, Phase.ABORTED):
            killed = killed and was is Phase.BOOTING
            self.boot_kills += killed
            verdict = on_failed_boot(
                self.state,
                newest=process.generation == self.goal.generation,
                kills=self.boot_kills if killed else 0,
                deaths=self.backoff.deaths,
                some_serve=pool.some_serve(self.members()),
            )
            if verdict is Verdict.HALT:
                self.stop()
            elif verdict is Verdict.ROLL_BACK:
                self.roll_back()

    def time_passes(self, seconds: float) -> None:
        """The loop sleeps until the time that it was told, decides, and so on; or the clock leaps (a suspend)."""
        if seconds > 1000:
            self.now += seconds
            return
        self.manage()
        until = self.now + seconds
        for _ in range(20 * len(self.processes) + 100):
            if self.wake_at is None or self.wake_at > until:
                break
            before = self.now + (self.wake_at - self.now) * 0.999
            early = self.decide(self.members(), self.goal, self.backoff, before)
            if self.now < before < self.wake_at and early.actions:
                raise Broken("idempotent", f"{self}: acts before the time it named, {self.wake_at}")
            self.now = max(self.now, self.wake_at)
            self.manage()
        else:
            raise Broken("rest", f"the time it names does not move on: {self}")
        self.now = until

    # --- what the master does ---------------------------------------------------------------------------------------

    def reload(self) -> None:
        if self.state in (Master.STARTING, Master.RELOADING):
            self.again = True
        elif self.state is Master.RUNNING:
            self.advance(MasterEvent.RELOAD)
            self.previous = self.goal
            self.generations += 1
            size, gpus = self.configured
            self.goal = replace(self.goal, size=size, gpus=gpus, generation=self.generations)

    def roll_back(self) -> None:
        assert self.previous is not None
        self.goal = replace(self.previous, stopping=self.goal.stopping)
        self.finish(MasterEvent.ROLLED_BACK)

    def finish(self, event: MasterEvent) -> None:
        self.previous = None
        self.advance(event)
        if self.again:
            self.again = False
            self.reload()

    def stop(self) -> None:
        self.advance(MasterEvent.STOP)
        self.goal = replace(self.goal, stopping=True)

    def manage(self) -> None:
        """One decision, its effects, and the promises."""
        before = [replace(each) for each in self.processes]
        decision = self.decide(self.members(), self.goal, self.backoff, self.now)
        for action in decision.actions:
            if isinstance(action, Spawn):
                self.ages += 1
                self.processes.append(
                    Process(self.ages, action.slot, self.goal.generation, deadline=self.now + BOOT_TIMEOUT)
                )
            else:
                self.told(next(each for each in self.processes if each.age == action.age), action)
        due = [each.deadline for each in self.processes] + [decision.wake_at]
        self.wake_at = min((when for when in due if when is not None), default=None)
        self.check(before, decision)
        goal = self.goal
        self.settle()
        if self.goal is not goal:  # a reload that had to wait has begun
            self.manage()

    def told(self, process: Process, action: Retire | Kill) -> None:
        if isinstance(action, Retire):
            patience = KILL_AFTER if process.phase is Phase.BOOTING else GRACEFUL
            self.move(process, WorkerEvent.RETIRE, patience + DRAIN_GRACE)
        elif action.phase is Phase.BOOTING:
            self.move(process, WorkerEvent.HANG, KILL_AFTER)
        else:
            self.move(process, WorkerEvent.KILL)

    def settle(self) -> None:
        serve = pool.all_serve(self.members(), self.goal)
        if self.state is Master.STARTING and serve:
            self.advance(MasterEvent.SERVES)
        elif self.state is Master.RELOADING and serve:
            self.finish(MasterEvent.RELOADED)
        elif self.state is Master.STOPPING and not self.processes:
            self.advance(MasterEvent.EMPTY)

    def advance(self, event: MasterEvent) -> None:
        self.state = advance(MASTER, self.state, event)

    def move(self, process: Process, event: WorkerEvent, patience: float | None = None) -> None:
        process.phase = advance(WORKER, process.phase, event)
        process.deadline = None if patience is None else self.now + patience

    def members(self) -> list[Member]:
        return [each.member() for each in self.processes]

    # --- what was promised ------------------------------------------------------------------------------------------

    def check(self, before: Iterable[Process], decision: Decision) -> None:
        goal = self.goal
        if self.decide(self.members(), goal, self.backoff, self.now).actions:
            raise Broken("idempotent", f"{_list(before)}, then {decision.actions}, and again something: {self}")
        if goal.stopping:
            return
        answered = sum(each.answers for each in before)
        answer = sum(each.answers for each in self.processes)
        if goal.size and answered and not answer:
            raise Broken("served", f"{_list(before)}, then {decision.actions}: {self}")
        orderly = sum(was.answers and self.has_successor(was) for was in before)
        if answer + orderly < min(answered, goal.size):
            raise Broken("successor", f"{_list(before)}, then {decision.actions}: {self}")
        current = [each for each in self.processes if each.live and each.generation == goal.generation]
        slots = Counter(each.slot for each in current)
        others = sum(each.live for each in self.processes) - len(current)
        spawned = any(isinstance(action, Spawn) for action in decision.actions)
        if spawned and goal.surge and others and len(self.processes) > goal.size + goal.surge:
            raise Broken("surge", f"more than {goal.surge} beside the wanted number: {self}")
        if sum(number > 1 for number in slots.values()) > 1 or any(number > 2 for number in slots.values()):
            raise Broken("recycling", f"{self}")
        if len(current) > goal.size + bool(goal.size):
            raise Broken("surge", f"{self}")
        if others > sum(each.live and each.generation != goal.generation for each in before):
            raise Broken("surge", f"another generation grew: {self}")
        waits = self.backoff.not_before > self.now  # and `wake_at` may be for the age of another
        if self.rests and not waits and not any(map(self.is_worn, current)):
            self.check_balance(current)

    def is_worn(self, process: Process) -> bool:
        return pool.aged(process.member(), self.now).worn

    def has_successor(self, was: Process) -> bool:
        """Whether a worker has just been retired, and a younger one serves in its slot."""
        return any(each.age == was.age and not each.answers for each in self.processes) and any(
            each.slot == was.slot and each.age > was.age and each.answers for each in self.processes
        )

    @property
    def rests(self) -> bool:
        """Nothing boots, leaves, or waits."""
        ageing = {each.worn_at for each in self.processes}
        return self.wake_at in ageing | {None} and all(each.answers for each in self.processes)

    def check_balance(self, current: Sequence[Process]) -> None:
        load = Counter(each.slot % self.goal.gpus for each in current)
        if load and max(load.values()) > math.ceil(self.goal.size / self.goal.gpus):
            raise Broken("balance", f"GPU loads {dict(load)}: {self}")
        if len({each.slot for each in current}) != len(current):
            raise Broken("balance", f"a slot is taken twice: {self}")

    def calm_down(self) -> None:
        """From here on processes do as they are told; the pool must come to rest at its goal."""
        self.max_age = 0.0
        for each in self.processes:
            each.worn, each.worn_at = self.is_worn(each), None
        self.manage()
        for _ in range(40 * (len(self.processes) + self.goal.size + 10)):
            self.happens(What.CONTINUED)
            if any(MEETS[What.READY](each) for each in self.processes):
                self.turn([(What.READY, 0, 0.0)])
            elif any(MEETS[What.LEAVES](each) for each in self.processes):
                self.turn([(What.LEAVES, 0, 0.0)])
            elif not any(MEETS[What.CONTINUED](each) for each in self.processes):
                if self.wake_at is None:
                    break
                self.turn([(What.TIME, 0, max(0.0, self.wake_at - self.now))])
        else:
            raise Broken("rest", f"it never does: {self}")
        if self.state is Master.DOWN:  # it gave up, since nothing could boot
            return
        current = [each for each in self.processes if each.generation == self.goal.generation]
        if len(current) != self.goal.size or len(self.processes) != len(current) or not self.rests:
            raise Broken("rest", f"{self}")
        if any(each.worn for each in current):
            raise Broken("rest", f"a worn worker stays: {self}")
        self.check_balance(current)
        if self.state is not Master.RUNNING:
            raise Broken("rest", f"still {self.state.value}: {self}")

    def end(self) -> None:
        """A stop: the processes leave, or ignore everything but KILL."""
        if self.state is Master.DOWN:
            return
        self.stop()
        self.manage()
        for number in range(4 * len(self.processes) + 4):
            if self.state is Master.DOWN:
                return
            gone = [each for each in self.processes if each.phase is Phase.KILLED]
            if gone:
                self.ends(gone[0], killed=True)
                self.manage()
            elif number % 2 and self.processes:
                self.turn([(What.LEAVES, number, 0.0)])
            elif self.wake_at is not None:
                self.turn([(What.TIME, 0, max(0.0, self.wake_at - self.now))])
        if self.state is not Master.DOWN:
            raise Broken("end", f"{self}")

    def __str__(self) -> str:
        goal = self.goal
        return (
            f"{self.state.value}, {goal.size} of g{goal.generation} on {goal.gpus} GPUs wanted, "
            f"at {self.now:g}, boots not before {self.backoff.not_before:g}: {_list(self.processes)}"
        )


MEETS: dict[What, Callable[[Process], bool]] = {
    What.READY: lambda each: each.phase is Phase.BOOTING,
    What.BOOT_FAILS: lambda each: each.phase in (Phase.BOOTING, Phase.ABORTED),
    What.BOOT_KILLED: lambda each: each.phase is Phase.BOOTING,
    What.DIES: lambda each: True,
    What.LEAVES: lambda each: each.phase in (Phase.RETIRING, Phase.ABORTED, Phase.KILLED),
    What.WORN: lambda each: each.answers and not each.worn,
    What.TERMED: lambda each: each.answers,
    What.STOPPED: lambda each: each.answers,
    What.CONTINUED: lambda each: each.phase is Phase.SERVING and each.stopped,
}


def _list(processes: Iterable[Process]) -> str:
    return "[" + ", ".join(map(str, processes)) + "]"
