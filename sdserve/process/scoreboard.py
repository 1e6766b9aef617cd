"""The scoreboard: what each worker is doing, in memory that master and workers share.

One anonymous shared mapping (mmap(2), MAP_SHARED|MAP_ANONYMOUS) is made before the first fork. Each worker owns one
cell of a cache line and is its only writer, except for two words. Every field is one aligned machine word, so a write
is one store: no lock, no system call, no file, and an idle process is never woken to say that it is idle.

`hand_on` is the master's word too: whether a worker that leaves may pass its idle connections on.

`place` is the worker's place in the queue for new connections, and how many it holds (accept_balance.py).

`watched` is how a master without a poll notices a hung worker. The master sets it while it has a deadline running for
the worker and clears it when it finds the worker idle; a worker that becomes busy and finds it cleared tells the master
so, once. An idle service thus costs no wake-ups, and a busy one costs one message in each time-out.
"""

import errno
import mmap
from math import inf

CELL_BYTES = 64
WORDS = CELL_BYTES // 8
HAND_ON, BUSY_SINCE, WATCHED, REQUESTS, PLACE, LAST_BUSY = range(6)

# Bits of HAND_ON: other workers adopt; the next start will, as systemd keeps the queue and restarts the service; it
# would if the master died.
HAND_ON_SUCCESSORS, HAND_ON_RESTART, HAND_ON_CRASH = 1, 2, 4


class Cell:
    """One worker's words. Times are `time.monotonic()` seconds, which all processes of one boot share."""

    __slots__ = ("_at", "_floats", "_words", "index")

    def __init__(self, index: int, words: "memoryview[int]", floats: "memoryview[float]") -> None:
        self.index = index
        self._at = index * WORDS
        self._words = words
        self._floats = floats

    def begin(self, now: float) -> bool:
        """The worker is busy with a request since `now`; true if the master must be told, because it does not watch."""
        self._floats[self._at + LAST_BUSY] = now
        return self.mark(now)

    def mark(self, now: float) -> bool:
        """The worker is busy with whatever it is since `now`; true as above."""
        self._floats[self._at + BUSY_SINCE] = now
        if self._words[self._at + WATCHED]:
            return False
        self._words[self._at + WATCHED] = 1
        return True

    def answered(self, requests: int, since: float) -> None:
        """The worker has answered so many requests in its life, the last ones of them since `since`."""
        at = self._at
        self._words[at + REQUESTS] = requests
        self._floats[at + LAST_BUSY] = since

    def end(self) -> None:
        """The worker is idle."""
        self._floats[self._at + BUSY_SINCE] = 0.0

    @property
    def busy_since(self) -> float:
        """When the oldest request in progress began, or 0.0."""
        return self._time(BUSY_SINCE)

    @property
    def last_busy(self) -> float:
        """When the worker last became busy, or 0.0."""
        return self._time(LAST_BUSY)

    def _time(self, field: int) -> float:
        """A time as it stands there; 0.0 for what a broken worker may have written, and is none."""
        when = self._floats[self._at + field]
        return when if 0.0 <= when < inf else 0.0

    def word(self, field: int) -> int:
        return int(self._words[self._at + field])

    def set_word(self, field: int, value: int) -> None:
        self._words[self._at + field] = value

    def column(self, field: int, cells: int) -> "memoryview[int]":
        """One word of each of the first cells, this one's neighbours, as they change."""
        return self._words[field : cells * WORDS : WORDS]

    def times(self, field: int, cells: int) -> "memoryview[float]":
        """The same for a word that is a time."""
        return self._floats[field : cells * WORDS : WORDS]

    def clear(self) -> None:
        for field in range(WORDS):
            self._words[self._at + field] = 0


class Scoreboard:
    """Cells for as many workers as can be alive at once, retiring ones included.

    Pages that no worker uses are never touched and cost no memory, so the bound can be generous.
    """

    def __init__(self, cells: int = 4096) -> None:
        self._memory = mmap.mmap(-1, cells * CELL_BYTES)
        view = memoryview(self._memory)
        self._words = view.cast("Q")
        self._floats = view.cast("d")
        self._free = list(range(cells - 1, -1, -1))

    def take(self) -> Cell:
        """A zeroed cell of one's own. Raises OSError (EAGAIN, as fork(2) does) when thousands of workers are alive."""
        if not self._free:
            raise OSError(errno.EAGAIN, f"{len(self._words) // WORDS} workers are alive, and no more are possible")
        cell = Cell(self._free.pop(), self._words, self._floats)
        cell.clear()
        return cell

    def at(self, index: int) -> Cell:
        """The cell of that index, for who only looks."""
        return Cell(index % (len(self._words) // WORDS), self._words, self._floats)

    def give_back(self, cell: Cell) -> None:
        cell.set_word(PLACE, 0)  # its neighbours still look
        self._free.append(cell.index)
