"""The scoreboard: what a worker writes, its master reads, across a real fork and without a system call."""

import os

import pytest

from sdserve.process.scoreboard import HAND_ON, LAST_BUSY, REQUESTS, WATCHED, Scoreboard


def in_a_child(work: object) -> None:
    """Runs `work` in a forked child and waits for its end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_counts_and_the_busy_mark_cross_a_fork() -> None:
    board = Scoreboard(8)
    cell = board.take()
    cell.set_word(HAND_ON, 7)

    def serve() -> None:
        assert cell.word(HAND_ON) == 7
        cell.answered(2, 99.0)
        assert cell.begin(123.5)

    in_a_child(serve)
    assert cell.word(REQUESTS) == 2
    assert cell.busy_since == cell.last_busy == 123.5
    in_a_child(cell.end)
    assert (cell.busy_since, cell.last_busy) == (0.0, 123.5)


def test_the_master_is_told_once_until_it_looks_away() -> None:
    cell = Scoreboard(1).take()
    assert [cell.begin(1.0), cell.begin(2.0)] == [True, False]
    cell.end()
    assert not cell.begin(3.0)
    cell.set_word(WATCHED, 0)
    assert cell.begin(4.0)


def test_neighbours_do_not_touch() -> None:
    board = Scoreboard(3)
    cells = [board.take() for _ in range(3)]
    cells[1].begin(9.0)
    cells[1].answered(2**40, 9.0)
    for cell in (cells[0], cells[2]):
        assert cell.busy_since == 0.0
        assert cell.word(REQUESTS) == cell.word(LAST_BUSY) == 0


def test_a_cell_is_cleared_for_its_next_owner() -> None:
    board = Scoreboard(1)
    first = board.take()
    first.begin(9.0)
    first.answered(5, 9.0)
    board.give_back(first)
    second = board.take()
    assert second.index == first.index
    assert (second.busy_since, second.last_busy, second.word(REQUESTS), second.word(WATCHED)) == (0.0, 0.0, 0, 0)


def test_full() -> None:
    board = Scoreboard(1)
    board.take()
    with pytest.raises(OSError, match="workers are alive, and no more are possible"):
        board.take()
