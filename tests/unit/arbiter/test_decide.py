"""What the pool decides, case by case; the simulation looks for the cases that nobody thought of."""

import pytest

from sdserve.arbiter.decide import Action, Backoff, Goal, Kill, Member, Retire, Spawn, all_serve, decide, some_serve
from sdserve.arbiter.lifecycle import Phase

NOW = 100.0


def worker(age: int, slot: int, phase: Phase = Phase.SERVING, generation: int = 1, **more: object) -> Member:
    return Member(age, slot, generation, phase).replace(**more)


def actions(members: list[Member], goal: Goal, backoff: Backoff | None = None) -> list[Action]:
    """What is decided; and that it settles the matter."""
    decided = decide(members, goal, backoff or Backoff(), NOW).actions
    told = {action.age for action in decided if not isinstance(action, Spawn)}
    after = [m.replace(phase=Phase.RETIRING, deadline=NOW + 9) if m.age in told else m for m in members]
    born = (action.slot for action in decided if isinstance(action, Spawn))
    after += [worker(100 + number, slot, Phase.BOOTING, goal.generation) for number, slot in enumerate(born)]
    assert not decide(after, goal, backoff or Backoff(), NOW).actions
    return list(decided)


def test_a_start_fills_all_slots() -> None:
    assert actions([], Goal(3)) == [Spawn(0), Spawn(1), Spawn(2)]


def test_a_replacement_takes_the_slot_of_the_dead() -> None:
    assert actions([worker(1, 0), worker(3, 2)], Goal(3)) == [Spawn(1)]


@pytest.mark.parametrize("phase", [Phase.RETIRING, Phase.ABORTED, Phase.KILLED])
def test_who_leaves_is_replaced_without_waiting_for_its_end(phase: Phase) -> None:
    assert actions([worker(1, 0, phase, deadline=NOW + 5)], Goal(1)) == [Spawn(0)]


def test_a_back_off_names_the_time_of_the_next_boot() -> None:
    decision = decide([worker(1, 0)], Goal(2), Backoff(2, NOW + 0.1, NOW), NOW)
    assert (decision.actions, decision.wake_at) == ((), NOW + 0.1)
    assert decide([worker(1, 0)], Goal(2), Backoff(2, NOW, NOW), NOW).actions == (Spawn(1),)


class TestSurplus:
    def test_the_oldest_retires_first(self) -> None:
        assert actions([worker(3, 0), worker(1, 1), worker(2, 2)], Goal(2)) == [Retire(1)]

    def test_a_worker_that_boots_goes_rather_than_one_that_is_needed(self) -> None:
        assert actions([worker(1, 0), worker(2, 1), worker(3, 2, Phase.BOOTING)], Goal(2)) == [Retire(3)]

    def test_the_only_one_that_serves_stays(self) -> None:
        assert actions([worker(1, 0), worker(2, 1, Phase.BOOTING)], Goal(1)) == [Retire(2)]

    def test_a_stopped_one_counts_for_nothing(self) -> None:
        assert actions([worker(1, 0), worker(2, 1, stopped=True)], Goal(1)) == [Retire(2)]

    def test_none_wanted(self) -> None:
        assert actions([worker(1, 0), worker(2, 1, Phase.BOOTING)], Goal(0)) == [Retire(2), Retire(1)]

    def test_one_less_while_a_worn_worker_is_being_replaced(self) -> None:
        """The worn one may go now: nobody needs its replacement any more."""
        members = [worker(1, 0), worker(2, 1, worn=True), worker(3, 1, Phase.BOOTING)]
        assert actions(members, Goal(1)) == [Retire(2), Retire(3)]


class TestRecycling:
    def test_the_replacement_boots_first_in_the_same_slot(self) -> None:
        old = worker(1, 1, worn=True)
        assert actions([worker(2, 0), old], Goal(2)) == [Spawn(1)]
        assert actions([worker(2, 0), old, worker(3, 1, Phase.BOOTING)], Goal(2)) == []
        assert actions([worker(2, 0), old, worker(3, 1)], Goal(2)) == [Retire(1)]

    def test_the_oldest_first_and_one_at_a_time(self) -> None:
        worn = [worker(age, age, worn=True) for age in (0, 1, 2)]
        assert actions(worn, Goal(3)) == [Spawn(0)]
        assert actions([*worn, worker(9, 0, Phase.BOOTING)], Goal(3)) == []

    def test_not_while_another_boots(self) -> None:
        assert actions([worker(1, 0, worn=True), worker(2, 1, Phase.BOOTING)], Goal(2)) == []

    def test_a_replacement_that_is_worn_itself_still_replaces(self) -> None:
        """max_requests of 1: ready and worn are heard together."""
        members = [worker(1, 1), worker(2, 0, worn=True), worker(3, 0, worn=True)]
        assert decide(members, Goal(2), Backoff(), NOW).actions == (Retire(2), Spawn(0))

    def test_age_wears_out_too_and_wakes_the_master(self) -> None:
        assert decide([worker(1, 0, worn_at=NOW + 7)], Goal(1), Backoff(), NOW).wake_at == NOW + 7
        assert actions([worker(1, 0, worn_at=NOW)], Goal(1)) == [Spawn(0)]


class TestReload:
    def test_the_old_serve_until_all_of_the_new_do(self) -> None:
        old = [worker(1, 0), worker(2, 1)]
        goal = Goal(2, generation=2)
        assert actions(old, goal) == [Spawn(0), Spawn(1)]
        assert actions([*old, worker(3, 0, generation=2), worker(4, 1, Phase.BOOTING, 2)], goal) == []
        new = [worker(3, 0, generation=2), worker(4, 1, generation=2)]
        assert actions([*old, *new], goal) == [Retire(1), Retire(2)]

    def test_a_stopped_new_worker_replaces_nobody(self) -> None:
        members = [worker(1, 0), worker(2, 0, generation=2, stopped=True)]
        assert actions(members, Goal(1, generation=2)) == []
        assert not all_serve(members, Goal(1, generation=2))

    def test_with_a_surge_one_for_one(self) -> None:
        old = [worker(1, 0), worker(2, 1)]
        goal = Goal(2, generation=2, surge=1)
        assert actions(old, goal) == [Spawn(0)]
        assert actions([*old, worker(3, 0, generation=2)], goal) == [Retire(1)]
        drained = [worker(2, 1), worker(3, 0, generation=2)]
        assert actions(drained, goal) == [Spawn(1)]

    def test_with_a_surge_no_more_are_alive_than_it_allows(self) -> None:
        members = [worker(1, 0, Phase.RETIRING), worker(2, 1), worker(3, 0, generation=2)]
        assert actions(members, Goal(2, generation=2, surge=1)) == []

    def test_rolled_back(self) -> None:
        members = [worker(1, 0), worker(2, 1), worker(3, 0, Phase.BOOTING, 2), worker(4, 1, generation=2)]
        assert actions(members, Goal(2, generation=1)) == [Retire(3), Retire(4)]


class TestExclusive:
    """surge = 0: a process has to end before the next one takes its place."""

    def test_at_a_reload_the_old_one_leaves_first(self) -> None:
        goal = Goal(1, generation=2, exclusive=True)
        assert actions([worker(1, 0)], goal) == [Retire(1)]
        assert actions([worker(1, 0, Phase.RETIRING)], goal) == []
        assert actions([], goal) == [Spawn(0)]

    def test_one_after_the_other(self) -> None:
        goal = Goal(2, generation=2, exclusive=True)
        old = [worker(1, 0), worker(2, 1)]
        assert actions(old, goal) == [Retire(1)]
        assert actions([old[1]], goal) == [Spawn(0)]
        assert actions([old[1], worker(3, 0, Phase.BOOTING, 2)], goal) == []
        assert actions([old[1], worker(3, 0, generation=2)], goal) == [Retire(2)]

    def test_a_new_one_that_is_stopped_lets_nobody_else_go(self) -> None:
        members = [worker(2, 1), worker(3, 0, generation=2, stopped=True)]
        assert actions(members, Goal(2, generation=2, exclusive=True)) == []

    def test_a_roll_back_waits_for_the_end_of_the_new_one(self) -> None:
        goal = Goal(1, generation=1, exclusive=True)
        assert actions([worker(2, 0, Phase.BOOTING, 2)], goal) == [Retire(2)]
        assert actions([worker(2, 0, Phase.ABORTED, 2)], goal) == []
        assert actions([], goal) == [Spawn(0)]

    def test_a_worn_one_leaves_before_its_replacement_boots(self) -> None:
        goal = Goal(2, exclusive=True)
        worn = [worker(1, 0, worn=True), worker(2, 1, worn=True)]
        assert actions(worn, goal) == [Retire(1)]
        assert actions([worker(1, 0, Phase.RETIRING), worn[1]], goal) == []
        assert actions([worn[1]], goal) == [Spawn(0)]

    def test_one_that_is_aborted_is_replaced_when_it_has_ended(self) -> None:
        assert actions([worker(1, 0, Phase.ABORTED)], Goal(1, exclusive=True)) == []

    def test_who_alone_answers_stays_when_a_reload_needs_fewer_than_boot_already(self) -> None:
        booting = [worker(age, age, Phase.BOOTING, generation=2) for age in (2, 3, 4)]
        assert actions([worker(1, 0), *booting], Goal(3, generation=2, exclusive=True)) == [Retire(4)]
        assert actions([worker(1, 0), *booting[:1]], Goal(1, generation=2, exclusive=True)) == [Retire(1)]


class TestGpus:
    def test_dealt_evenly(self) -> None:
        spawned = [action.slot % 2 for action in actions([], Goal(5, gpus=2)) if isinstance(action, Spawn)]
        assert sorted(spawned) == [0, 0, 0, 1, 1]

    def test_a_new_one_goes_to_the_emptiest(self) -> None:
        assert actions([worker(1, 0), worker(2, 2)], Goal(3, gpus=2)) == [Spawn(1)]

    def test_a_surplus_one_leaves_the_fullest(self) -> None:
        assert actions([worker(1, 1), worker(2, 0), worker(3, 2)], Goal(2, gpus=2)) == [Retire(2)]

    def test_survivors_on_one_gpu_are_spread_again(self) -> None:
        """Two died on one GPU, and two TTOU came before their replacements: a newcomer first, then one moves over."""
        crowd = [worker(1, 1), worker(2, 3)]
        goal = Goal(2, gpus=2)
        assert actions(crowd, goal) == [Spawn(0)]
        assert actions([*crowd, worker(3, 0, Phase.BOOTING)], goal) == []
        assert actions([*crowd, worker(3, 0)], goal) == [Retire(1)]


class TestDeadlines:
    @pytest.mark.parametrize("phase", [Phase.BOOTING, Phase.SERVING, Phase.RETIRING, Phase.ABORTED])
    def test_who_lets_its_deadline_pass_is_ended(self, phase: Phase) -> None:
        late = worker(1, 0, phase, deadline=NOW)
        assert Kill(1, phase) in decide([late], Goal(1), Backoff(), NOW).actions

    def test_the_earliest_deadline_wakes_the_master(self) -> None:
        members = [worker(1, 0, Phase.BOOTING, deadline=NOW + 5), worker(2, 1, Phase.RETIRING, deadline=NOW + 3)]
        assert decide(members, Goal(1), Backoff(), NOW).wake_at == NOW + 3

    def test_an_idle_pool_waits_for_ever(self) -> None:
        assert decide([worker(1, 0)], Goal(1), Backoff(), NOW).wake_at is None


def test_a_stop_retires_everybody_and_boots_nobody() -> None:
    members = [worker(1, 0), worker(2, 1, Phase.BOOTING), worker(3, 0, generation=2), worker(4, 1, Phase.RETIRING)]
    assert actions(members, Goal(5, stopping=True)) == [Retire(1), Retire(2), Retire(3)]


class TestBackoff:
    def test_the_first_replacement_is_immediate_then_the_wait_doubles_up_to_the_cap(self) -> None:
        backoff, waits = Backoff(), []
        for _ in range(20):
            backoff = backoff.after_death(NOW, None, NOW)
            waits.append(round(backoff.not_before - NOW, 3))
        assert waits[:5] == [0.0, 0.1, 0.2, 0.4, 0.8]
        assert waits[-1] == Backoff.CAP

    def test_service_ends_the_row(self) -> None:
        assert Backoff(7, NOW).after_death(NOW - 9, Backoff.SHORT_LIFE, NOW) == Backoff()
        assert Backoff(7, NOW).after_death(NOW, Backoff.SHORT_LIFE / 2, NOW).rounds == 8

    def test_who_was_forked_before_the_round_was_counted_belongs_to_it(self) -> None:
        backoff = Backoff()
        for number in range(16):
            backoff = backoff.after_death(NOW - 0.5, 0.4, NOW + number / 1000)
        assert (backoff.rounds, backoff.not_before) == (1, NOW)
        assert backoff.after_death(NOW + 0.1, None, NOW + 0.2).rounds == 2

    def test_who_is_killed_from_outside_is_replaced_soon(self) -> None:
        backoff = Backoff(9, NOW, NOW).after_death(NOW, None, NOW, outside=True)
        assert backoff.not_before == NOW + Backoff.SOON

    def test_while_nobody_serves_one_slot_tries_soon(self) -> None:
        backoff = Backoff(9, NOW + 20, NOW)
        assert decide([], Goal(3), backoff, NOW).wake_at == NOW + Backoff.SOON
        later = decide([], Goal(3), backoff, NOW + Backoff.SOON)
        assert (later.actions, later.wake_at) == ((Spawn(0),), NOW + 20)
        alone = [worker(1, 0, Phase.BOOTING)]
        assert decide(alone, Goal(3), backoff, NOW + Backoff.SOON).actions == ()
        assert decide([worker(1, 0)], Goal(3), backoff, NOW + Backoff.SOON).actions == ()

    def test_one_that_has_served_for_a_while_calls_the_others(self) -> None:
        backoff, first = Backoff(9, NOW + 20, NOW), worker(1, 0, serving_since=NOW + 1.5)
        served = first.serving_since + Backoff.SHORT_LIFE  # type: ignore[operator]
        assert decide([first], Goal(3), backoff, NOW + 2).wake_at == served
        assert decide([first], Goal(3), backoff, served).actions == (Spawn(1), Spawn(2))
        older = worker(1, 0, serving_since=NOW - 5)
        assert decide([older], Goal(3), backoff, served).wake_at == NOW + 20


def test_who_can_answer() -> None:
    assert some_serve([worker(1, 0)])
    assert not some_serve([worker(1, 0, stopped=True), worker(2, 1, Phase.BOOTING), worker(3, 2, Phase.RETIRING)])
