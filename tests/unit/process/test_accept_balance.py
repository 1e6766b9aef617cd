"""The balance between workers that accept: who steps aside, for whom, and for whom not."""

from sdserve.process.accept_balance import BUSY, COUNT, AcceptBalance
from sdserve.process.scoreboard import PLACE, Scoreboard


def worker_with(board: Scoreboard, connections: int) -> AcceptBalance:
    worker = AcceptBalance(board.take(), 4)
    worker.join()
    worker.hold(connections)
    return worker


def test_the_last_one_with_more_than_its_share_steps_aside() -> None:
    board = Scoreboard(64)
    few, many = worker_with(board, 2), worker_with(board, 5)
    assert many.steps_aside(1.0)
    assert not few.steps_aside(1.0)


def test_a_small_lead_is_none() -> None:
    board = Scoreboard(64)
    worker_with(board, 2), worker_with(board, 100)
    assert not worker_with(board, 4).steps_aside(1.0)
    assert not worker_with(Scoreboard(64), 1000).steps_aside(1.0)  # the only worker


def test_who_is_not_last_in_the_queue_was_perhaps_woken_alone() -> None:
    board = Scoreboard(64)
    many = worker_with(board, 5)
    few = worker_with(board, 0)
    assert not many.steps_aside(1.0)
    many.took(6)
    assert many.steps_aside(1.0)
    few.took(1)
    assert not many.steps_aside(1.0)


def test_who_is_alone_has_no_queue_to_go_to_the_end_of() -> None:
    board = Scoreboard(64)
    first = worker_with(board, 5)
    assert not first.took(6)
    second = worker_with(board, 0)
    assert first.took(7)
    second.leave()
    assert not first.took(8)


def test_nobody_is_waited_for_twice_without_coming() -> None:
    board = Scoreboard(64)
    few, many = worker_with(board, 0), worker_with(board, 9)
    assert many.steps_aside(1.0)
    many.join()
    assert not many.steps_aside(1.0)
    many.took(10)
    assert many.steps_aside(1.0)
    few.took(1)
    many.join()
    assert many.steps_aside(1.0)


def test_neighbours_that_take_nothing_are_not_waited_for() -> None:
    board = Scoreboard(64)
    cell = board.take()
    few = AcceptBalance(cell, 4)
    few.join()
    many = worker_with(board, 9)
    cell.begin(10.0)
    assert not many.steps_aside(10.0 + 2 * BUSY)
    cell.end()
    few.leave()
    assert not many.steps_aside(20.0)
    few.hold(1)  # what it finishes while it retires
    assert not many.steps_aside(20.0)
    few.join()
    board.give_back(cell)  # it died
    many.join()
    assert not many.steps_aside(20.0)


def test_after_the_last_ticket_the_queue_begins_anew() -> None:
    board = Scoreboard(64)
    cells = [board.take(), board.take()]
    few, many = (AcceptBalance(cell, 4) for cell in cells)
    cells[0].set_word(PLACE, COUNT - 1 << 32 | 1)  # weeks of connections later
    many.join()
    assert cells[1].word(PLACE) >> 32 == COUNT
    few.join()
    assert cells[0].word(PLACE) >> 32 == 1
    for worker, connections in ((few, 1), (many, 6), (few, 2), (many, 7)):
        assert worker.took(connections)
    assert all(0 < cell.word(PLACE) >> 32 < 8 for cell in cells)
    assert many.steps_aside(1.0)


def test_what_all_were_told_of_is_left_to_whoever_has_fewer_wherever_they_stand() -> None:
    board = Scoreboard(64)
    many, few = worker_with(board, 9), worker_with(board, 0)
    assert many.leaves_to_others(1.0)
    assert not few.leaves_to_others(1.0)
    assert not many.leaves_to_others(1.0)  # it did not come
    many.adopted(10)
    assert many.leaves_to_others(1.0)
    few.hold(9)
    assert not many.leaves_to_others(1.0)


def test_surplus_is_what_a_worker_has_beyond_its_share() -> None:
    board = Scoreboard(64)
    many, some, few = worker_with(board, 30), worker_with(board, 12), worker_with(board, 0)
    assert [each.surplus() for each in (many, some, few)] == [16, 0, 0]
    few.leave()
    assert many.surplus() == 9
    some.hold(27)  # hardly fewer
    assert many.surplus() == 0
    assert worker_with(Scoreboard(64), 1000).surplus() == 0  # the only worker
    few.join()
    many.leave()  # it is full
    assert many.surplus() == 11
    some.leave()
    few.leave()
    assert many.surplus() == 0  # nobody takes any


def test_a_worker_beyond_the_cells_that_are_looked_at_has_its_share_too() -> None:
    board = Scoreboard(64)
    retiring = [board.take() for _ in range(4)]
    late = AcceptBalance(board.take(), 1)
    late.join()
    late.hold(9)
    assert late.surplus() == 0
    board.give_back(retiring[0])
    next_one = AcceptBalance(board.take(), 1)
    next_one.join()
    assert late.surplus() == 4
