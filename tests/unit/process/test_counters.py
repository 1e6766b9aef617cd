"""Counters: what is counted where, and the memory that masters pass to each other."""

import fcntl
import math
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from sdserve.process import counter_memory, counters
from sdserve.process.counter_memory import BLOCK_BYTES, CELLS, SIZE, CounterMemory, obtain
from sdserve.process.counters import (
    ACCEPTED,
    BOUNDS,
    BUCKETS,
    BYTES,
    CELL_BYTES,
    CLASSES,
    EXITS,
    GROWING,
    PID,
    QUICK,
    QUICK_SECONDS,
    CounterCell,
    Row,
)

Obtain = Callable[..., tuple[CounterMemory, str]]


@pytest.fixture
def obtained() -> Iterator[Obtain]:
    """Memories as masters obtain them; their descriptors are closed at the end."""
    memories = []

    def obtain_one(*fds: int) -> tuple[CounterMemory, str]:
        memory, trouble = obtain(fds)
        memories.append(memory)
        return memory, trouble

    yield obtain_one
    for memory in memories:
        memory.close()


def passed(memory: CounterMemory) -> int:
    """What the next master gets."""
    assert memory.shared is not None
    return os.dup(memory.shared.fileno())


def test_a_layout_has_a_number_of_its_own() -> None:
    """Two versions may map the same memory, in an upgrade or by way of the fd store. Whatever moves a word, or changes
    what one means, needs another LAYOUT."""
    assert counter_memory.LAYOUT == 2
    assert (CELL_BYTES, CELLS, counter_memory.HEADER_BYTES) == (1536, 32, 4096)
    assert CLASSES == ("1xx", "2xx", "3xx", "4xx", "5xx", "gone")
    assert BOUNDS == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
    assert counters.CAUSES == ("told", "recycled", "timeout", "late", "killed", "crashed", "exited", "boot")
    assert counters.OUTCOMES == ("succeeded", "failed")
    assert counters.STATES[:6] == ("", "starting", "serving", "draining", "stopping", "booting")
    assert counters.STATES[6:10] == ("retiring", "aborted", "killed", "gone")
    growing = "ANSWERS QUEUED ACCEPTED ADOPTED GIVEN_AWAY DROPPED EXITS RELOADS UPGRADES"
    assert [getattr(counters, name) for name in growing.split()] == [0, 96, 112, 113, 114, 115, 116, 124, 126]
    assert (QUICK, QUICK_SECONDS, BYTES, GROWING) == (128, 129, 130, 131)
    live = "STATE PID SLOT GENERATION BORN INDEX STOPPED THREADS BUSY OPEN WANTED MASTER POLLS BEGAN"
    assert [getattr(counters, name) for name in live.split()] == list(range(160, 174))


@pytest.mark.parametrize(
    ("status", "name"),
    [
        ("101", "1xx"),
        ("200 OK", "2xx"),
        ("304 Not Modified", "3xx"),
        ("404", "4xx"),
        ("503", "5xx"),
        ("999", "5xx"),
        ("", "gone"),
    ],
)
def test_an_answer_counts_in_the_row_of_its_status(status: str, name: str) -> None:
    memory = CounterMemory.private()
    memory.take().answered(status, 0.02)
    answers = memory.totals().answers
    assert {each: row.count for each, row in answers.items()} == {each: each == name for each in CLASSES}
    assert answers[name].seconds == 0.02


def test_what_a_neighbour_has_overwritten_fails_nobody() -> None:
    """Workers share the memory with their master, who counts their ends."""
    cell = CounterCell.private()
    for at in range(len(cell.words)):
        cell.words[at] = (1 << 64) - 1
    cell.add(ACCEPTED, 2)
    cell.answered("404", 0.1)
    assert (cell.get(ACCEPTED), cell.words[cell.rows["4"] + BOUNDS.index(0.1)]) == (1, 0)
    cell.quick(2, 0.001, 5)
    assert (cell.get(QUICK), cell.floats[QUICK_SECONDS], cell.get(BYTES)) == (2, 0.001, 5)
    cell.set(BYTES, 1)
    cell.quick(1, 0.0, 5)
    assert (cell.get(QUICK), cell.get(BYTES)) == (3, 10), "what was counted is known"


def test_most_answers_are_counted_in_words_of_their_own_and_belong_to_their_bucket() -> None:
    memory = CounterMemory.private()
    for number, cell in enumerate((memory.take(), memory.take()), 1):
        cell.answered("200 OK", BOUNDS[0])
        cell.quick(10 * number, 0.25, 1000)
        cell.quick(number, 0.25, 0)
    told = memory.totals()
    assert told.answers["2xx"] == Row((35, *[0] * (BUCKETS - 1)), 2 * BOUNDS[0] + 1.0)
    assert told.words[BYTES] == 2000
    first = next(memory.cells())
    memory.give_back(first)
    memory.take().quick(1, 0.5, 1)
    assert memory.totals().answers["2xx"].count == 36, "the next owner of a cell counts on"


def test_no_count_goes_back_while_somebody_looks() -> None:
    """A scrape looks at any moment, and a kill leaves what stands there: no word may pass through a lower value."""
    memory = CounterMemory.private()
    cell = memory.take()
    if not (pid := os.fork()):
        for _ in range(20_000):
            cell.quick(1, 0.001, 100)
        os._exit(0)
    before = 0, 0.0, 0
    while not os.waitpid(pid, os.WNOHANG)[0]:
        for _ in range(1000):
            seen = cell.get(QUICK), cell.floats[QUICK_SECONDS + cell.at], cell.get(BYTES)
            assert all(now >= then for now, then in zip(seen, before, strict=True)), (before, seen)
            before = seen
    assert (cell.get(QUICK), cell.get(BYTES)) == (20_000, 2_000_000)


def test_a_bound_belongs_to_the_bucket_that_it_ends() -> None:
    memory = CounterMemory.private()
    cell = memory.take()
    for seconds in (0.0, *BOUNDS, 99.0):
        cell.queued(seconds)
    assert memory.totals().queued == Row((2, *[1] * (BUCKETS - 1)), sum(BOUNDS) + 99.0)


def test_a_quantile_is_the_bound_below_which_so_many_lie() -> None:
    row = Row((90, 0, 9, *[0] * (BUCKETS - 4), 1), 1.0)
    assert [row.quantile(share) for share in (0.5, 0.9, 0.99, 1.0)] == [0.005, 0.005, 0.025, float("inf")]
    assert Row((0,) * BUCKETS, 0.0).quantile(0.99) is None


def test_what_was_counted_stays_when_a_worker_has_ended_and_when_another_gets_its_cell() -> None:
    memory = CounterMemory.private()
    first = memory.take()
    first.add(ACCEPTED, 3)
    first.set(PID, 7)
    first.state = "serving"
    memory.give_back(first)
    second = memory.take()
    assert (second.index, second.get(PID), second.state) == (first.index, 0, "")
    second.add(ACCEPTED)
    assert memory.totals().words[ACCEPTED] == 4
    assert len(list(memory.cells())) == 1


def test_two_masters_never_share_a_cell_and_both_count(obtained: Obtain) -> None:
    old, _ = obtained()
    new, trouble = obtained(passed(old))
    assert not trouble
    cells = [old.take().index for _ in range(CELLS + 1)], [new.take().index for _ in range(CELLS)]
    assert not set(cells[0]) & set(cells[1])
    assert new.created == old.created


def test_cells_are_free_again_when_the_last_process_that_may_write_to_them_has_gone(obtained: Obtain) -> None:
    """A master is killed, and a worker of its outlives it."""
    kept, _ = obtained()
    told, tell = os.pipe()
    ready, say = os.pipe()
    master = os.fork()
    if master == 0:
        memory = CounterMemory.found(passed(kept))
        cell = memory.take()
        if os.fork() == 0:
            memory.close()
            os.close(tell)
            os.read(told, 1)
            cell.add(ACCEPTED)
            os._exit(0)
        os.write(say, bytes((cell.index,)))
        os._exit(0)
    index = os.read(ready, 1)[0]
    os.waitpid(master, 0)
    os.close(say)
    assert obtained(passed(kept))[0].take().index != index
    os.close(tell)
    assert os.read(ready, 1) == b""  # the end of the worker, which has the last copy of `say`
    os.close(ready)
    os.close(told)
    after, _ = obtained(passed(kept))
    assert after.take().index == index
    assert after.totals().words[ACCEPTED] == 1


def memfd(size: int = SIZE, seals: int = counter_memory.SEALS, content: bytes = b"") -> int:
    fd = os.memfd_create("theirs", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, content, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


GOOD = words(counter_memory.MARK, counter_memory.LAYOUT, SIZE, 0x41D9_0000_0000_0000)
NOT_OURS: dict[str, Callable[[], int]] = {
    "a socket": lambda: socket.socket().detach(),
    "a directory": lambda: os.open("/", os.O_RDONLY),
    "another length": lambda: memfd(SIZE - BLOCK_BYTES),
    "can shrink": lambda: memfd(seals=fcntl.F_SEAL_GROW, content=GOOD),
    "cannot be written": lambda: memfd(seals=counter_memory.SEALS | fcntl.F_SEAL_WRITE, content=GOOD),
    "no mark": lambda: memfd(content=words(0, counter_memory.LAYOUT, SIZE, 1)),
    "an older layout": lambda: memfd(content=words(counter_memory.MARK, counter_memory.LAYOUT - 1, SIZE, 1)),
    "a newer layout": lambda: memfd(content=words(counter_memory.MARK, counter_memory.LAYOUT + 1, SIZE, 1)),
    "no time": lambda: memfd(content=words(counter_memory.MARK, counter_memory.LAYOUT, SIZE, 0x7FF8 << 48)),
}


def test_what_is_ours_is_believed(obtained: Obtain) -> None:
    memory, trouble = obtained(memfd(content=GOOD))
    assert not memory.fresh and not trouble


@pytest.mark.parametrize("what", NOT_OURS)
def test_what_is_not_ours_is_closed_and_counting_starts_anew(obtained: Obtain, what: str) -> None:
    fd = NOT_OURS[what]()
    memory, trouble = obtained(fd)
    assert memory.fresh and memory.shared is not None
    assert "counting starts anew" in trouble
    assert not os.path.exists(f"/proc/self/fd/{fd}") or os.path.samestat(os.fstat(fd), os.fstat(memory.shared.fileno()))


def test_without_a_memfd_counters_end_with_their_master(obtained: Obtain, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, flags: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", refused)
    memory, trouble = obtained()
    assert memory.shared is None and "outlive" in trouble
    memory.take().add(BYTES, 5)
    assert memory.totals().words[BYTES] == 5


def test_a_cell_of_nobody_can_be_counted_in() -> None:
    cell, other = CounterCell.private(), CounterCell.private()
    cell.answered("200 OK", 0.1)
    place = cell.rows["2"] + BOUNDS.index(0.1)
    assert (cell.words[place], other.words[place]) == (1, 0), "and is nobody else's"


@pytest.mark.parametrize("byte", [0xFF, 0xF1, 0x80])
def test_what_a_broken_worker_has_written_over_the_counts_stops_nobody(byte: int) -> None:
    """The master counts on in its own cell, who gets a cell next counts from zero, and sums are always numbers."""
    memory = CounterMemory.private()
    master, worker = memory.take(), memory.take()
    for cell in (master, worker):
        for word in range(GROWING):
            cell.set(word, int.from_bytes(bytes([byte]) * 8, "little"))
    for _ in range(2):
        master.add(EXITS)
    totals = memory.totals()
    assert all(map(math.isfinite, totals.floats.values()))
    assert totals.words[BYTES] == 0, "what nobody can have counted is in no sum"
    memory.give_back(worker)
    heir = memory.take()
    assert heir.index == worker.index
    heir.quick(3, 0.5, 0)
    heir.answered("500", 0.1)
    heir.queued(0.1)
    assert heir.get(BYTES) == 0
