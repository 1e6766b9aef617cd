"""What the pool of workers needs next: pure decisions from (members, goal, now) to actions.

The rules, in the order of `decide`:

1. A wanted place without a worker of the current generation gets one (`Spawn`), unless a back-off says when.
2. A worker of another generation, and one that asked for its replacement, goes (`Retire`) once what follows it serves:
   the whole new generation, or with a surge one worker for one. Replacements for worn workers come one at a time.
3. Too many workers: the oldest retires first; with GPUs, the oldest on the fullest one, so that they stay balanced.
4. Who does not boot, finish or abort in time is ended (`Kill`).

A slot is a worker's stable number; its replacement takes it over. GPUs are dealt by slot, `slot % gpus`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sdserve.arbiter.lifecycle import Phase

LIVE = (Phase.BOOTING, Phase.SERVING)


@dataclass(frozen=True, slots=True)
class Member:
    """One worker as the decisions see it. `age` is unique and grows; `deadline` ends its phase (monotonic seconds)."""

    age: int
    slot: int
    generation: int
    phase: Phase
    deadline: float | None = None
    worn: bool = False  # asked for its replacement
    worn_at: float | None = None  # when it will have served for long enough
    stopped: bool = False  # SIGSTOP, or a tracer: it cannot serve


@dataclass(frozen=True, slots=True)
class Goal:
    """What the pool should be: `size` workers of `generation`, on `gpus` GPUs (1: no assignment)."""

    size: int
    generation: int = 1
    gpus: int = 1
    stopping: bool = False
    surge: int = 0  # during a reload, so many more than `size` may be alive; 0: a whole generation


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next boot, after workers that died without having served for a while.

    The first replacement is immediate; from the second death in a row the wait doubles, up to `CAP` seconds.
    """

    deaths: int = 0
    not_before: float = 0.0

    FIRST = 0.1
    CAP = 30.0
    SHORT_LIFE = 1.0  # seconds of service that end a row of deaths

    def after_death(self, served: float | None, now: float) -> "Backoff":
        """After a worker died that had served for `served` seconds, or never (None)."""
        if served is not None and served >= self.SHORT_LIFE:
            return Backoff()
        deaths = self.deaths + 1
        wait = 0.0 if deaths == 1 else min(self.CAP, self.FIRST * 2.0 ** min(deaths - 2, 16))
        return Backoff(deaths, now + wait)


@dataclass(frozen=True, slots=True)
class Spawn:
    slot: int


@dataclass(frozen=True, slots=True)
class Retire:
    age: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End a worker that let its deadline pass; `phase` is the one it is stuck in."""

    age: int
    phase: Phase


Action = Spawn | Retire | Kill


@dataclass(frozen=True, slots=True)
class Decision:
    """`actions` to take now; `wake_at`: when to decide again if nothing happens before (monotonic seconds)."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None


def decide(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    """What to do about `members` to come nearer to `goal`. Deciding again after the actions gives no new ones."""
    actions: list[Action] = [Kill(m.age, m.phase) for m in members if m.deadline is not None and m.deadline <= now]
    doomed = {action.age for action in actions if isinstance(action, Kill)}
    wake: list[float] = [m.deadline for m in members if m.deadline is not None and m.deadline > now]
    wake += [m.worn_at for m in members if m.worn_at is not None and m.worn_at > now]
    live = [aged(m, now) for m in members if m.phase in LIVE and m.age not in doomed]
    if goal.stopping:
        actions += [Retire(m.age) for m in live]
        return Decision(tuple(actions), min(wake, default=None))

    current = [m for m in live if m.generation == goal.generation]
    replacing = worn_in_turn(current, goal)
    incoming = [m for m in current if m is not replacing]

    outgoing = sorted((m for m in live if m.generation != goal.generation), key=lambda m: m.age)

    missing = spawns(incoming, replacing, goal)
    if goal.surge and outgoing:
        missing = missing[: max(0, goal.size + goal.surge - len(members))]
    if missing and now < backoff.not_before:
        wake.append(backoff.not_before)
    else:
        actions += [Spawn(slot) for slot in missing]

    surplus = oldest_surplus(incoming, goal)
    actions += [Retire(m.age) for m in surplus]

    kept = [m for m in incoming if m not in surplus]
    serving = [m for m in kept if m.phase is Phase.SERVING]
    actions += [Retire(m.age) for m in replaced(outgoing, serving, goal)]
    if replacing is not None and (goal.size == 0 or any(m.slot == replacing.slot for m in serving)):
        actions.append(Retire(replacing.age))
    return Decision(tuple(actions), min(wake, default=None))


def aged(member: Member, now: float) -> Member:
    """The member with `worn` set if its time has come."""
    if member.worn_at is None or member.worn_at > now:
        return member
    return replace(member, worn=True)


def replaced(outgoing: Sequence[Member], serving: Sequence[Member], goal: Goal) -> Sequence[Member]:
    """The workers of other generations, oldest first in `outgoing`, that `serving` ones of the current replace.

    All of them once the whole current generation serves; with a surge one for one, in the same slot if there is one.
    """
    if len(serving) >= goal.size:
        return outgoing
    if not goal.surge:
        return ()
    spare = len(serving) + len(outgoing) - goal.size
    slots = {m.slot for m in serving}
    return sorted(outgoing, key=lambda m: (m.slot not in slots, m.phase is Phase.SERVING, m.age))[: max(0, spare)]


def worn_in_turn(current: Sequence[Member], goal: Goal) -> Member | None:
    """The one worn worker whose replacement may boot now: the oldest, while no other boot is under way.

    A worker whose replacement already boots in its slot stays the one in turn until it is retired.
    """
    worn = sorted((m for m in current if m.worn), key=lambda m: m.age)
    fresh_slots = {m.slot for m in current if not m.worn}
    for member in worn:
        if member.slot in fresh_slots:
            return member
    return worn[0] if worn and len(current) <= goal.size else None


def spawns(incoming: Sequence[Member], replacing: Member | None, goal: Goal) -> list[int]:
    """The slots of the workers that are missing: lowest first, the least loaded GPU before others."""
    taken = {m.slot for m in incoming}
    load = Counter(slot % goal.gpus for slot in taken)
    chosen: list[int] = []
    if replacing is not None and replacing.slot not in taken and len(taken) < goal.size:
        chosen.append(replacing.slot)
        taken.add(replacing.slot)
        load[replacing.slot % goal.gpus] += 1
    while len(taken) < goal.size:
        free = (slot for slot in range(goal.size + len(taken) + goal.gpus) if slot not in taken)
        slot = min(free, key=lambda slot: (load[slot % goal.gpus], slot))
        chosen.append(slot)
        taken.add(slot)
        load[slot % goal.gpus] += 1
    return chosen


def oldest_surplus(incoming: Iterable[Member], goal: Goal) -> list[Member]:
    """The workers beyond the wanted number: the oldest first, on the fullest GPU."""
    rest = sorted(incoming, key=lambda m: m.age)
    surplus: list[Member] = []
    while len(rest) > goal.size:
        load = Counter(m.slot % goal.gpus for m in rest)
        fullest = max(load.values())
        last = _last_serving(rest)
        candidates = [m for m in rest if load[m.slot % goal.gpus] == fullest and (m is not last or goal.size == 0)]
        leaving = next(iter(candidates), None) or next(m for m in rest if m is not last)
        rest.remove(leaving)
        surplus.append(leaving)
    return surplus


def _last_serving(members: Sequence[Member]) -> Member | None:
    """The only member that serves, if it is the only one: nobody may retire it while the others still boot."""
    serving = [m for m in members if m.phase is Phase.SERVING]
    return serving[0] if len(serving) == 1 else None


def all_serve(members: Iterable[Member], goal: Goal) -> bool:
    """True when the wanted number of the current generation serves."""
    serving = sum(1 for m in members if m.phase is Phase.SERVING and m.generation == goal.generation)
    return serving >= goal.size


def some_serve(members: Iterable[Member]) -> bool:
    """True when at least one worker can answer: it serves and is not stopped."""
    return any(m.phase is Phase.SERVING and not m.stopped for m in members)


def rolled_back(goal: Goal, generation: int, size: int) -> Goal:
    """The goal after a generation that could not boot: the one before it, and its size."""
    return replace(goal, generation=generation, size=size)
