"""Every history of a few threads that share a lead, and long random ones of more: the roster's promises hold.

- One thread polls, never two, and never none while one could: also when the leader dies.
- A token is its call's own: a call that returns takes no other's.
- Each call that runs is known to run, with its thread, so that a hang is named.
- Nothing that waits for a certain thread waits for ever, no stream is lost, and nothing is remembered of what is over.
"""

import os
import random
from collections import deque

import pytest

from sdserve.workers.wsgi.roster import Next, Roster, Seat, Taken
from tests.simulation.lead import At, Broken, Move, State, begin, moves, step

EVENTS = int(os.environ.get("SIMULATION_EVENTS", "20000"))
Real = Roster[str, str]


def tell(history: list[Move], error: Broken) -> str:
    lines = [f"  {action.__name__} {', '.join(map(str, arguments))}" for action, arguments in history]
    return "\n".join([str(error), *lines])


def explore(start: State, kind: type[Real] = Roster) -> int:
    """Visits every state that can be reached, the nearest first; how many there are. Raises Broken with the history."""
    came: dict[State, tuple[State, Move] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        for move in moves(state):
            try:
                found = step(state, move, kind)
            except (Broken, AssertionError, LookupError) as error:
                history, at = [move], state
                while (before := came[at]) is not None:
                    at, earlier = before
                    history.insert(0, earlier)
                raise Broken(tell(history, Broken(error))) from error
            if found not in came:
                came[found] = (state, move)
                queue.append(found)
    assert all(any(thread.at is At.GONE for thread in state.threads) or list(moves(state)) for state in came)
    return len(came)


def wander(start: State, steps: int, seed: int) -> None:
    """One long random history."""
    chance, state, history = random.Random(seed), start, list[Move]()
    for _ in range(steps):
        possible = [move for move in moves(state) if move[0].__name__ != "stops"]
        move = chance.choice(possible)
        history.append(move)
        try:
            state = step(state, move)
        except Broken as error:
            raise Broken(tell(history[-60:], error)) from error


@pytest.mark.parametrize(("threads", "streams"), [(1, "ab"), (2, "a"), (2, "ab"), (3, "a")])
def test_every_history_of_a_few_threads(threads: int, streams: str) -> None:
    assert explore(begin(threads, streams)) > 10


@pytest.mark.parametrize("seed", range(4))
def test_long_histories_of_many_threads(seed: int) -> None:
    wander(begin(5, "abcdef"), EVENTS // 4, seed)


def test_who_holds_a_response_that_waits_is_given_calls_last() -> None:
    roster = Real()
    leader, holder, other = Seat[str](), Seat[str](), Seat[str]()
    for seat in (leader, other, holder):
        roster.join(seat)
        roster.rest(seat)
    leader.held.add("slow")
    holder.held.add("slow too")
    assert roster.hand_over("call") == [other] and roster.leader is other
    assert roster.rest(other) == "call" and roster.leader is other
    assert roster.rest(leader) is Next.WAIT
    assert roster.pass_on() == [leader], "nobody else is left"
    assert roster.hand_over("another") == [] and roster.leader is leader


# --- planted faults: each is caught by a promise ----------------------------------------------------------------------


class TakesAnyToken(Real):
    def take(self, call: str) -> bool:
        try:
            self.table.popitem()
        except KeyError:
            return False
        return True


class ForgetsToPassOn(Real):
    def leave(self, seat: Seat[str]) -> list[Seat[str]]:
        self.seats.discard(seat)
        self.table.clear()
        return self.lose(seat)


class SleepsThoughNobodyLeads(Real):
    def rest(self, seat: Seat[str]) -> Next | str:
        if self.stopped or seat.jobs or self.leader is not None or not self.seats - {seat}:
            return super().rest(seat)
        self.idle.append(seat)
        return Next.WAIT


class PromotesWithoutTheToken(Real):
    def promote(self) -> tuple[Taken[str, str] | None, list[Seat[str]]]:
        table = dict(self.table)
        found = super().promote()
        self.table.update(table)
        return found


class DoesNotWakeTheOwner(Real):
    def assign(self, job: str, seat: Seat[str] | None) -> tuple[bool, list[Seat[str]]]:
        here, woken = super().assign(job, seat)
        self.idle.extend(woken)
        return here, []


class WaitsForTheLost(Real):
    def assign(self, job: str, seat: Seat[str] | None) -> tuple[bool, list[Seat[str]]]:
        if seat is None or seat is self.leader:
            return True, []
        seat.jobs.append(job)
        return False, [seat] if seat in self.idle else []


class DropsWhatIsShared(Real):
    def share_out(self, seat: Seat[str]) -> list[Seat[str]]:
        seat.jobs.clear()
        return []


class HandsTheLeadOverAlone(Real):
    def hand_over(self, job: str) -> list[Seat[str]]:
        woken = super().hand_over(job)
        for seat in woken:
            seat.jobs.clear()
        return woken


@pytest.mark.parametrize(
    ("fault", "promise"),
    [
        (TakesAnyToken, "token|lead"),
        (ForgetsToPassOn, "nobody polls"),
        (SleepsThoughNobodyLeads, "nobody polls"),
        (PromotesWithoutTheToken, "thread 0 leads"),
        (DoesNotWakeTheOwner, "does not come"),
        (WaitsForTheLost, "idle"),
        (DropsWhatIsShared, "is lost"),
        (HandsTheLeadOverAlone, "is lost"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_fault_is_caught(fault: type[Real], promise: str) -> None:
    with pytest.raises(Broken, match=promise):
        explore(begin(2, "ab"), fault)
