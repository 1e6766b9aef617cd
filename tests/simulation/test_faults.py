"""Each promise that the simulation watches is worth something: it catches a fault planted in the real decisions."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sdserve.arbiter import decide, lifecycle, pool, signals
from sdserve.arbiter.children import Children
from sdserve.arbiter.decide import Backoff, Decision, Goal, Member, Retire, Spawn
from sdserve.arbiter.hang import HangWatch
from sdserve.arbiter.lifecycle import Master, MasterEvent, Phase
from sdserve.arbiter.main_process import MainProcess
from sdserve.arbiter.new_master import NewMaster
from sdserve.arbiter.old_master import OldMaster
from sdserve.arbiter.pidfile_claim import PidfileClaim
from sdserve.arbiter.pool import Pool
from sdserve.arbiter.reload import Reload
from sdserve.arbiter.service import Service
from sdserve.arbiter.service_manager import ServiceManager
from sdserve.arbiter.shutdown import Shutdown
from sdserve.arbiter.successor import Successor
from sdserve.arbiter.verdict import Verdict
from tests.simulation.events import Step, What
from tests.simulation.histories import live, random_plan, random_steps, shortest
from tests.simulation.plan import EXCLUSIVE, Plan
from tests.simulation.promises import Broken

Patch = pytest.MonkeyPatch
Decide = Callable[[Sequence[Member], Goal, Backoff, float], Decision]
rightly = decide.decide


def judging(judge: Decide) -> Callable[[Patch], None]:
    """A fault in what the pool is thought to need."""

    def plant(patch: Patch) -> None:
        patch.setattr(decide, "decide", judge)

    plant.__name__ = judge.__name__
    return plant


# --- the pool ---------------------------------------------------------------------------------------------------------


def takes_booting_for_serving(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    hasty = [m.replace(phase=Phase.SERVING, deadline=None) if m.phase is Phase.BOOTING else m for m in members]
    return rightly(hasty, goal, backoff, now)


def takes_stopped_for_serving(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return rightly([m.replace(stopped=False) for m in members], goal, backoff, now)


def forks_two_more(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return rightly(members, goal if goal.stopping else goal.replace(size=goal.size + 2), backoff, now)


def forgets_that_it_is_exclusive(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return rightly(members, goal.replace(exclusive=False), backoff, now)


def forgets_the_surge(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return rightly(members, goal.replace(surge=0), backoff, now)


def replaces_all_worn_at_once(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    decision = rightly(members, goal, backoff, now)
    worn = [m for m in members if m.worn and m.phase is Phase.SERVING and m.generation == goal.generation]
    fresh = {m.slot for m in members if m not in worn} | {a.slot for a in decision.actions if isinstance(a, Spawn)}
    slots = {m.slot for m in worn} - fresh if not goal.stopping else set()
    return decision.replace(actions=(*decision.actions, *map(Spawn, slots)))


def retires_worn_before_their_replacement_serves(
    members: Sequence[Member], goal: Goal, backoff: Backoff, now: float
) -> Decision:
    decision = rightly(members, goal, backoff, now)
    told = {action.age for action in decision.actions if isinstance(action, Retire)}
    serving = [m for m in members if m.phase is Phase.SERVING and m.age not in told]
    early = [
        Retire(m.age)
        for m in serving
        if m.worn and any(n.slot == m.slot and n.age > m.age and n.phase is Phase.BOOTING for n in members)
    ]
    return decision.replace(actions=(*decision.actions, *early[: len(serving) - 1]))


def does_not_see_who_boots(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return rightly([m for m in members if m.phase is not Phase.BOOTING], goal, backoff, now)


def forgets_the_gpus(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return rightly(members, goal.replace(gpus=1), backoff, now)


def does_not_replace_the_dead(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    decision = rightly(members, goal, backoff, now)
    return decision.replace(actions=tuple(a for a in decision.actions if not (members and isinstance(a, Spawn))))


def does_not_stop(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    return Decision() if goal.stopping else rightly(members, goal, backoff, now)


def acts_by_and_by(members: Sequence[Member], goal: Goal, backoff: Backoff, now: float) -> Decision:
    decision = rightly(members, goal, backoff, now)
    return decision.replace(actions=decision.actions[:1])


def crowded_gpus_are_not_noticed(patch: Patch) -> None:
    patch.setattr(decide, "crowded", lambda load, goal: False)


def waits_for_nothing_after_deaths(patch: Patch) -> None:
    patch.setattr(Backoff, "after_death", lambda self, *args, **kwargs: Backoff())


def lets_nobody_try_before_the_others(patch: Patch) -> None:
    patch.setattr(Backoff, "SOON", Backoff.CAP)


def does_not_wake_up_for_the_next_boot(patch: Patch) -> None:
    real = Pool._wake_at
    patch.setattr(Pool, "_wake_at", lambda self, when: real(self, None))


# --- workers ----------------------------------------------------------------------------------------------------------


def tries_a_failed_boot_again_during_a_reload(patch: Patch) -> None:
    patch.setattr(pool, "on_failed_boot", lambda *args, **kwargs: Verdict.RETRY)


def lets_deadlines_pass(patch: Patch) -> None:
    patch.setattr(Children, "overdue", lambda self, handle, phase: None)


def never_loses_patience_with_who_should_leave(patch: Patch) -> None:
    real = Children.overdue

    def overdue(self: Children, handle: Any, phase: Phase) -> None:
        if phase is not Phase.RETIRING:
            real(self, handle, phase)
        handle.deadline = None

    patch.setattr(Children, "overdue", overdue)


def leaves_the_mute_to_themselves(patch: Patch) -> None:
    patch.setattr(Children, "_lives_mute", lambda self, handle: None)


def takes_who_is_silent_for_idle(patch: Patch) -> None:
    real = HangWatch.rest

    def rest(self: HangWatch, handle: Any) -> bool:
        return handle.mute or real(self, handle)

    patch.setattr(HangWatch, "rest", rest)


def remembers_the_dead(patch: Patch) -> None:
    real = Children.__iter__
    dead: list[Any] = []

    def reap(self: Children, handle: Any, reap: Callable[..., None] = Children.reap) -> None:
        reap(self, handle)
        if handle.phase is Phase.GONE and handle not in dead:
            dead.append(handle)

    patch.setattr(Children, "reap", reap)
    patch.setattr(
        Children, "__iter__", lambda self: iter([*real(self), *(h for h in dead if h.worker.log is self._log)])
    )


# --- reloads ----------------------------------------------------------------------------------------------------------


def keeps_a_failed_reload_from_systemd(patch: Patch) -> None:
    real = Reload._finish

    def finish(self: Reload, event: MasterEvent, trouble: str) -> None:
        with pytest.MonkeyPatch.context() as silent:
            if trouble:
                silent.setattr(ServiceManager, "reloaded", lambda self, began: None)
            real(self, event, trouble)

    patch.setattr(Reload, "_finish", finish)


def forgets_a_second_hup(patch: Patch) -> None:
    patch.setattr(Reload, "catch_up", lambda self: None)


def merges_ttin(patch: Patch) -> None:
    patch.setattr(signals, "COUNTED", ())


def a_stop_during_a_reload_is_a_bug(patch: Patch) -> None:
    moves = {event: to for event, to in lifecycle.MASTER[Master.RELOADING].items() if event is not MasterEvent.STOP}
    patch.setitem(lifecycle.MASTER, Master.RELOADING, moves)


# --- upgrades ---------------------------------------------------------------------------------------------------------


def hands_over_to_the_dead(patch: Patch) -> None:
    patch.setattr(Successor, "alive", True)


def takes_over_before_it_serves(patch: Patch) -> None:
    real = NewMaster.listen

    def listen(self: NewMaster) -> None:
        real(self)
        self.serves()

    patch.setattr(NewMaster, "listen", listen)


def speaks_on_after_the_hand_over(patch: Patch) -> None:
    patch.setattr(ServiceManager, "pass_to", lambda self, pid, heir: self.notifier.main_pid(pid))


def leaves_before_systemd_has_heard(patch: Patch) -> None:
    patch.setattr(MainProcess, "is_owed", False)


def ends_while_the_old_master_drains(patch: Patch) -> None:
    patch.setattr(NewMaster, "parent_drains", False)


def waits_for_ever_for_the_old_master(patch: Patch) -> None:
    patch.setattr(NewMaster, "_bound", lambda self, seconds: None)


def leaves_the_new_master_to_itself(patch: Patch) -> None:
    patch.setattr(OldMaster, "take_along", lambda self, graceful, restart: None)


def refuses_nothing(patch: Patch) -> None:
    patch.setattr(OldMaster, "refusal", "")


def forgets_an_early_usr2(patch: Patch) -> None:
    patch.setattr(OldMaster, "catch_up", lambda self: None)


def leaves_the_new_master_its_old_code(patch: Patch) -> None:
    patch.setattr(OldMaster, "bring_along", lambda self: None)


def removes_a_socket_that_is_shared(patch: Patch) -> None:
    patch.setattr(Service, "shares_listeners", False)


def pings_whatever_happens(patch: Patch) -> None:
    patch.setattr(Pool, "healthy", lambda self: True)


def asks_for_no_time_before_a_step(patch: Patch) -> None:
    patch.setattr(ServiceManager, "begin_step", lambda self, seconds: None)


def looks_at_nobody_before_it_leaves(patch: Patch) -> None:
    patch.setattr(Children, "last_use", lambda self: 0.0)


def is_promoted_in_name_only(patch: Patch) -> None:
    patch.setattr(PidfileClaim, "promote", lambda self: None)


def leaves_its_pidfile(patch: Patch) -> None:
    patch.setattr(PidfileClaim, "end", lambda self: None)


def takes_a_restart_for_a_stop(patch: Patch) -> None:
    real = Shutdown.begin
    patch.setattr(Shutdown, "begin", lambda self, graceful, restart: real(self, graceful, restart=False))


def keeps_connections_at_a_stop(patch: Patch) -> None:
    real = Shutdown.begin
    patch.setattr(Shutdown, "begin", lambda self, graceful, restart: real(self, graceful, restart=True))


def does_not_answer_at_a_stop(patch: Patch) -> None:
    patch.setattr(Reload, "abandon", lambda self: None)


FAULTS: list[tuple[Callable[[Patch], None], str]] = [
    (judging(takes_booting_for_serving), "served"),
    (judging(takes_stopped_for_serving), "served"),
    (judging(takes_stopped_for_serving), "successor"),
    (judging(retires_worn_before_their_replacement_serves), "successor"),
    (judging(forks_two_more), "surge"),
    (judging(forgets_the_surge), "surge"),
    (judging(forgets_that_it_is_exclusive), "exclusive"),
    (judging(replaces_all_worn_at_once), "recycling"),
    (judging(does_not_see_who_boots), "recycling"),
    (judging(acts_by_and_by), "idempotent"),
    (judging(forgets_the_gpus), "balance"),
    (crowded_gpus_are_not_noticed, "balance"),
    (judging(does_not_replace_the_dead), "rest"),
    (does_not_wake_up_for_the_next_boot, "idempotent"),
    (judging(does_not_stop), "end"),
    (never_loses_patience_with_who_should_leave, "end"),
    (ends_while_the_old_master_drains, "end"),
    (waits_for_ever_for_the_old_master, "rest"),
    (leaves_the_mute_to_themselves, "rest"),
    (leaves_the_new_master_to_itself, "end"),
    (waits_for_nothing_after_deaths, "storm"),
    (lets_nobody_try_before_the_others, "outage"),
    (tries_a_failed_boot_again_during_a_reload, "verdict"),
    (lets_deadlines_pass, "asleep"),
    (takes_who_is_silent_for_idle, "hung"),
    (remembers_the_dead, "reaped"),
    (keeps_a_failed_reload_from_systemd, "told"),
    (forgets_a_second_hup, "answered"),
    (merges_ttin, "answered"),
    (forgets_an_early_usr2, "answered"),
    (does_not_answer_at_a_stop, "answered"),
    (a_stop_during_a_reload_is_a_bug, "error"),
    (hands_over_to_the_dead, "mainpid"),
    (leaves_the_new_master_its_old_code, "current"),
    (speaks_on_after_the_hand_over, "mainpid"),
    (leaves_before_systemd_has_heard, "mainpid"),
    (takes_over_before_it_serves, "ready"),
    (refuses_nothing, "masters"),
    (removes_a_socket_that_is_shared, "socket"),
    (takes_a_restart_for_a_stop, "store"),
    (keeps_connections_at_a_stop, "store"),
    (pings_whatever_happens, "watchdog"),
    (asks_for_no_time_before_a_step, "watchdog"),
    (looks_at_nobody_before_it_leaves, "idle"),
    (is_promoted_in_name_only, "pidfile"),
    (leaves_its_pidfile, "pidfile"),
]


@dataclass(frozen=True)
class Kind:
    """Lives in which a fault shows soon: what happens often, and what the plan must be."""

    often: tuple[What, ...] = ()
    plan: dict[str, Any] = field(default_factory=dict)


ANY = Kind()
CROWDS = Kind((What.TTOU, What.DIES, What.LEAVES, What.READY), {"workers": 4, "gpus": 3})
# What lives of any kind show too rarely.
KINDS = {
    "takes_stopped_for_serving": Kind((What.STOPPED, What.TTOU, What.TTIN), {"workers": 2}),
    "forgets_that_it_is_exclusive": Kind((What.HUP, What.WORN), {"surge": EXCLUSIVE}),
    "forgets_the_gpus": CROWDS,
    "crowded_gpus_are_not_noticed": CROWDS,
    "does_not_replace_the_dead": Kind((What.DIES,), {"workers": 4}),
    "lets_nobody_try_before_the_others": Kind((What.BOOT_FAILS, What.DIES, What.TIME), {"workers": 1, "idle": 0}),
    "takes_who_is_silent_for_idle": Kind((What.MUTE, What.BUSY, What.TIME)),
    "merges_ttin": Kind((What.TTIN,)),
    "a_stop_during_a_reload_is_a_bug": Kind((What.HUP, What.TERM)),
    "hands_over_to_the_dead": Kind(
        (What.USR2, What.MASTER_STARTS, What.READY, What.MASTER_KILLED),
        {"systemd": True, "manual": False, "workers": 1},
    ),
    "leaves_before_systemd_has_heard": Kind(
        (What.USR2, What.MASTER_STARTS, What.READY, What.LEAVES, What.DEAF),
        {"systemd": True, "manual": False, "workers": 1},
    ),
    "waits_for_ever_for_the_old_master": Kind((What.USR2, What.MASTER_STARTS, What.READY), {"workers": 1}),
    "ends_while_the_old_master_drains": Kind(
        (What.USR2, What.MASTER_STARTS, What.READY, What.UNIT_STOPS), {"systemd": True, "workers": 1}
    ),
    "retires_worn_before_their_replacement_serves": Kind((What.WORN,), {"workers": 2}),
    "leaves_the_new_master_to_itself": Kind((What.USR2, What.MASTER_STARTS, What.UNIT_RESTARTS), {"systemd": True}),
    "leaves_the_new_master_its_old_code": Kind(
        (What.USR2, What.MASTER_STARTS, What.HUP, What.READY, What.ACKNOWLEDGES), {"manual": False, "workers": 1}
    ),
    "forgets_an_early_usr2": Kind((What.USR2, What.MASTER_STARTS)),
    "pings_whatever_happens": Kind((What.STOPPED, What.TIME), {"workers": 1, "watchdog": 4, "systemd": True}),
    "asks_for_no_time_before_a_step": Kind((What.STEP_LASTS, What.DIES), {"watchdog": 4, "systemd": True}),
    "looks_at_nobody_before_it_leaves": Kind((What.BUSY, What.IDLE, What.TIME), {"idle": 6, "systemd": True}),
}
LIVES = 600


def lives(kind: Kind = ANY, number: int = LIVES) -> Iterator[tuple[Plan, list[Step]]]:
    for seed in range(number):
        dice = random.Random(seed)
        plan = replace(random_plan(dice), **kind.plan)
        yield plan, [step for _, step in zip(range(60), random_steps(dice, kind.often), strict=False)]


def broken(kind: Kind = ANY, number: int = LIVES) -> Iterator[Broken]:
    """The promises that short lives with a fault break, one after the other."""
    for plan, history in lives(kind, number):
        try:
            live(plan, history)
        except Broken as error:
            yield error


@pytest.mark.parametrize(("fault", "promise"), FAULTS, ids=lambda each: getattr(each, "__name__", each))
def test_a_planted_fault_is_caught(fault: Callable[[Patch], None], promise: str, monkeypatch: Patch) -> None:
    fault(monkeypatch)
    assert any(error.promise == promise for error in broken(KINDS.get(fault.__name__, ANY)))


def test_every_promise_has_its_fault() -> None:
    from tests.simulation import promises

    lines = (line.split(" ")[0] for line in str(promises.__doc__).splitlines()[2:])
    assert {word for word in lines if word} == {promise for _, promise in FAULTS}


def test_a_failing_run_shrinks_to_a_readable_story(monkeypatch: Patch) -> None:
    hands_over_to_the_dead(monkeypatch)
    for plan, history in lives(KINDS["hands_over_to_the_dead"]):
        try:
            live(plan, history)
        except Broken as error:
            if error.promise == "mainpid":
                story = str(shortest(plan, history, error))
                break
    print(story)
    assert len(story.splitlines()) < 40
    assert "is no living master" in story and "is sent USR2" in story


def test_the_judgement_itself_breaks_nothing() -> None:
    assert not list(broken(number=40))
