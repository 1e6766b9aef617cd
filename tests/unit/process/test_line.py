"""The line for new connections: who steps aside, for whom, and for whom not."""

from sdserve.process.line import BUSY, Line
from sdserve.process.scoreboard import Scoreboard


def line_of(board: Scoreboard, connections: int) -> Line:
    line = Line(board.take(), 4)
    line.join()
    line.hold(connections)
    return line


def test_the_last_one_with_more_than_its_share_steps_aside() -> None:
    board = Scoreboard(64)
    few, many = line_of(board, 2), line_of(board, 5)
    assert many.steps_aside(1.0)
    assert not few.steps_aside(1.0)


def test_a_small_lead_is_none() -> None:
    board = Scoreboard(64)
    line_of(board, 2), line_of(board, 100)
    assert not line_of(board, 4).steps_aside(1.0)
    assert not line_of(Scoreboard(64), 1000).steps_aside(1.0)  # the only worker


def test_who_is_not_last_in_line_was_perhaps_woken_alone() -> None:
    board = Scoreboard(64)
    many = line_of(board, 5)
    few = line_of(board, 0)
    assert not many.steps_aside(1.0)
    many.took(6)
    assert many.steps_aside(1.0)
    few.took(1)
    assert not many.steps_aside(1.0)


def test_who_is_alone_has_no_line_to_go_to_the_end_of() -> None:
    board = Scoreboard(64)
    first = line_of(board, 5)
    assert not first.took(6)
    second = line_of(board, 0)
    assert first.took(7)
    second.leave()
    assert not first.took(8)


def test_nobody_is_waited_for_twice_without_coming() -> None:
    board = Scoreboard(64)
    few, many = line_of(board, 0), line_of(board, 9)
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
    few = Line(cell, 4)
    few.join()
    many = line_of(board, 9)
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
