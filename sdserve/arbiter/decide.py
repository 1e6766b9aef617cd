"""What the pool of workers needs next: pure decisions from (members, goal, now) to actions.

The rules, in the order of `decide`:

1. A wanted place without a worker of the current generation gets one (`Spawn`), unless a back-off says when.
2. Others go (`Retire`) once what follows them serves: workers of another generation when the whole new one does, or
   with a surge one for one; a worn one, which asked for its replacement, or one on a GPU that has too many, when its
   replacement does. Such replacements come one at a time, while all else is well.
3. Too many workers: first go those that cannot answer (yet), then worn ones, then the oldest; with GPUs, of those on
   the fullest one.
4. A worker that does not boot, finish or abort in time is killed (`Kill`).

An exclusive pool (surge = 0) turns 1 and 2 round: a process has to end before another one takes its place, one place at
a time, while all else is well.

A slot is a worker's stable number; its replacement takes it over. GPUs are dealt by slot, `slot % gpus`.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from sdserve.arbiter.lifecycle import Phase
from sdserve.immutable import Immutable

LIVE = (Phase.BOOTING, Phase.SERVING)


class Member(Immutable):
    """One worker as the decisions see it. `age` is unique and grows; `deadline` ends its phase (monotonic seconds)."""

    age: int
    slot: int
    generation: int
    phase: Phase
    deadline: float | None = None
    worn: bool = False  # asked for its replacement
    worn_at: float | None = None  # when it will have served for long enough
    stopped: bool = False  # SIGSTOP, or a tracer: it cannot serve
    serving_since: float | None = None  # None: it does not serve yet


class Goal(Immutable):
    """What the pool should be: `size` workers of `generation`, on `gpus` GPUs (1: no assignment)."""

    size: int
    generation: int = 1
    gpus: int = 1
    stopping: bool = False
    surge: int = 0  # during a reload, so many more than `size` may be alive; 0: a whole generation
    exclusive: bool = False  # never more than `size` alive


class Backoff(Immutable):
    """How long to wait before the next boots, after workers that died without having served for a while.

    Rounds of boots count, not workers: all that were forked before the last round was counted died with it. The first
    round is followed at once; from the second in a row the wait doubles, up to `CAP` seconds. Where somebody from
    outside ended a worker (KILL, no room to fork) the application is not at fault: the wait stays below `SOON`.

    rounds: in a row; counted_at: when the last one was; not_before: when the next boots may begin (monotonic seconds)
    """

    rounds: int = 0
    not_before: float = 0.0
    counted_at: float = 0.0

    FIRST = 0.1
    SOON = 1.0
    CAP = 30.0
    SHORT_LIFE = 1.0  # seconds of service that end a row of rounds

    def after_death(self, born: float, served: float | None, now: float, *, outside: bool = False) -> "Backoff":
        """After a worker died that was forked at `born` and had served for `served` seconds, or never (None)."""
        if served is not None and served >= self.SHORT_LIFE:
            return Backoff()
        if born < self.counted_at:
            return self
        rounds = self.rounds + 1
        wait = 0.0 if rounds == 1 else self.FIRST * 2.0 ** min(rounds - 2, 16)
        return Backoff(rounds, now + min(wait, self.SOON if outside else self.CAP), now)


class Spawn(Immutable):
    slot: int


class Retire(Immutable):
    age: int


class Kill(Immutable):
    """End a worker that let its deadline pass; `phase` is the one it is stuck in."""

    age: int
    phase: Phase


Action = Spawn | Retire | Kill


class Decision(Immutable):
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
    outgoing = [m for m in live if m.generation != goal.generation]
    leaving = superseded(current)
    leaving += surplus([m for m in current if m not in leaving], goal)
    kept = [m for m in current if m not in leaving]
    if goal.exclusive:
        leaving += makes_way(kept, outgoing, len(members), goal)
        kept = [m for m in kept if m not in leaving]
    else:
        leaving += replaced(outgoing, [m for m in kept if answers(m)], goal)
    actions += [Retire(m.age) for m in leaving]

    slots = missing(kept, goal)
    if goal.exclusive:
        slots = slots[: max(0, goal.size - len(members))]
    elif not slots:
        slots = relief(kept, goal)
    if goal.surge and any(m not in leaving for m in outgoing):
        slots = slots[: max(0, goal.size + goal.surge - len(members))]
    if slots:
        first, rest = boot_times(live, goal, backoff)
        if now < rest:
            slots = slots[:1] if first <= now and not any(m.phase is Phase.BOOTING for m in live) else []
            wake.append(first if first > now else rest)
        actions += [Spawn(slot) for slot in slots]

    return Decision(tuple(actions), min(wake, default=None))


def boot_times(live: Sequence[Member], goal: Goal, backoff: Backoff) -> tuple[float, float]:
    """When one worker may boot, alone, and when the others may.

    One soon, while nobody serves. All, when one has served for a while since the last round of deaths.
    """
    rest = backoff.not_before
    for member in live:
        since = member.serving_since
        if since is not None and member.generation == goal.generation and since >= backoff.counted_at:
            rest = min(rest, since + backoff.SHORT_LIFE)
    first = rest if any(map(answers, live)) else min(rest, backoff.counted_at + backoff.SOON)
    return first, rest


def answers(member: Member) -> bool:
    """Whether it can answer clients."""
    return member.phase is Phase.SERVING and not member.stopped


def aged(member: Member, now: float) -> Member:
    """The member with `worn` set if its time has come."""
    if member.worn_at is None or member.worn_at > now:
        return member
    return member.replace(worn=True)


def replaced(outgoing: Sequence[Member], serving: Sequence[Member], goal: Goal) -> Sequence[Member]:
    """The workers of other generations that `serving` ones of the current replace.

    All of them once the whole current generation serves; with a surge one for one: those first that cannot answer, then
    those whose slot is served again.
    """
    if len(serving) >= goal.size:
        return outgoing
    if not goal.surge:
        return ()
    spare = len(serving) + len(outgoing) - goal.size
    slots = {m.slot for m in serving}
    return sorted(outgoing, key=lambda m: (answers(m), m.slot not in slots, m.age))[: max(0, spare)]


def makes_way(current: Sequence[Member], outgoing: Sequence[Member], alive: int, goal: Goal) -> Sequence[Member]:
    """The worker of an exclusive pool that leaves for the next one, at a reload or because it is worn.

    One at a time: nobody else boots, leaves or fails to answer, and all places are taken. Where fewer are wanted and
    those of the current generation would be enough, but still boot, the youngest of them makes way for who answers.
    """
    if len(current) >= goal.size > 1 and some_serve(outgoing) and not some_serve(current):
        return sorted(current, key=lambda m: -m.age)[:1]
    if len(current) >= goal.size:
        return outgoing or (worn_or_crowding(current, goal) if alive == len(current) else ())
    if alive > len(current) + len(outgoing) or alive < goal.size or not all(map(answers, current)):
        return ()
    return sorted(outgoing, key=lambda m: (answers(m), m.age))[:1]


def worn_or_crowding(current: Sequence[Member], goal: Goal) -> Sequence[Member]:
    """The one that is to be replaced: the oldest worn worker, or the oldest on a GPU that has too many."""
    if not all(map(answers, current)):
        return ()
    load = gpu_load(current, goal)
    tired = [m for m in current if m.worn] or [m for m in current if load[m.slot % goal.gpus] > most(goal)]
    return sorted(tired, key=lambda m: m.age)[:1]


def superseded(current: Sequence[Member]) -> list[Member]:
    """The worn workers whose replacement, a younger worker in their slot, serves."""
    return [m for m in current if m.worn and any(n.slot == m.slot and n.age > m.age and answers(n) for n in current)]


def surplus(current: Sequence[Member], goal: Goal) -> list[Member]:
    """The workers beyond the wanted number, except one that boots to replace another.

    Those that cannot answer (yet) leave first, so that what serves is never less than it need be; then the worn ones;
    then the oldest on the fullest GPU.
    """
    rest = sorted(current, key=lambda m: m.age)
    leaving: list[Member] = []
    while True:
        replacement = under_way(rest, goal)
        if len(rest) <= goal.size + (replacement is not None):
            return leaving
        load = gpu_load(rest, goal)
        idle = [m for m in rest if not answers(m) and m is not replacement]
        worn = [m for m in rest if m.worn]
        leaver = max(idle or worn or rest, key=lambda m: (load[m.slot % goal.gpus], -m.age))
        rest.remove(leaver)
        leaving.append(leaver)


def under_way(current: Sequence[Member], goal: Goal) -> Member | None:
    """The worker that will replace a worn one, or one on a GPU that has too many, once it can answer."""
    crowd = gpu_load([m for m in current if answers(m)], goal)
    for member in current:
        if goal.size == 0 or answers(member):
            continue
        if any(m.worn and m.slot == member.slot and m.age < member.age for m in current):
            return member
        if crowded(crowd, goal) and crowd[member.slot % goal.gpus] < most(goal):
            return member
    return None


def missing(current: Iterable[Member], goal: Goal) -> list[int]:
    """The slots of the workers that are missing: lowest first, the least loaded GPU before others."""
    taken = {m.slot for m in current}
    chosen: list[int] = []
    while len(taken) < goal.size:
        slot = free_slot(taken, goal)
        chosen.append(slot)
        taken.add(slot)
    return chosen


def relief(current: Sequence[Member], goal: Goal) -> list[int]:
    """The slot of a replacement to boot for the oldest worn worker, or for one on a GPU that has too many.

    One at a time, and only while everybody serves.
    """
    if len(current) != goal.size or not all(map(answers, current)):
        return []
    worn = min((m for m in current if m.worn), key=lambda m: m.age, default=None)
    if worn is not None:
        return [worn.slot]
    if crowded(gpu_load(current, goal), goal):
        return [free_slot({m.slot for m in current}, goal)]
    return []


def free_slot(taken: Collection[int], goal: Goal) -> int:
    """The lowest free slot of the least loaded GPU."""
    load = Counter(slot % goal.gpus for slot in taken)
    free = (slot for slot in range(len(taken) + goal.gpus) if slot not in taken)
    return min(free, key=lambda slot: (load[slot % goal.gpus], slot))


def gpu_load(members: Iterable[Member], goal: Goal) -> Counter[int]:
    """How many workers each GPU has, by its number."""
    return Counter(m.slot % goal.gpus for m in members)


def most(goal: Goal) -> int:
    """How many workers a GPU may have: ceil(size / gpus)."""
    return -(-goal.size // goal.gpus)


def crowded(load: Counter[int], goal: Goal) -> bool:
    """Whether a GPU has more workers than it may."""
    return max(load.values(), default=0) > most(goal)


def reload_limit(goal: Goal, boot_timeout: float, graceful_timeout: float) -> float | None:
    """The seconds that a reload may take; None where boots have no limit.

    A boot and a drain, for each step from old workers to new ones: all at once, or as many at a time as the surge is.
    """
    if not boot_timeout:
        return None
    steps = goal.size if goal.exclusive else -(-goal.size // goal.surge) if goal.surge else 1
    return max(1, steps) * (boot_timeout + graceful_timeout)


def all_serve(members: Iterable[Member], goal: Goal) -> bool:
    """True when the wanted number of the current generation serves."""
    return sum(1 for m in members if answers(m) and m.generation == goal.generation) >= goal.size


def gap_ends(members: Iterable[Member], goal: Goal) -> bool:
    """True while an exclusive pool waits for one to leave or to boot: nobody serves for a while, and it has an end."""
    return goal.exclusive and any(m.phase in (Phase.BOOTING, Phase.RETIRING) for m in members)


def some_serve(members: Iterable[Member]) -> bool:
    """True when at least one worker can answer: it serves and is not stopped."""
    return any(map(answers, members))
