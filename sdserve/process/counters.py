"""What a service counts, in memory that outlives its processes: answers by status and time, connections, ends.

Each worker writes into one cell, and so does each master. A word has one writer at a time and is one aligned machine
word, so counting is a load and a store: no lock, no system call.

The first words only grow. The next worker that gets the cell counts on from there, and a total is the sum over all
cells (counter_memory.py). Nothing is cleared, or moved elsewhere, when a worker ends: a master that died halfway would
count it twice. The last words say what the owner is doing now. They are cleared when it has ended.

Answers are counted by status class and duration at once: each class has a histogram, whose buckets are words, followed
by the sum of its seconds. So the latency of errors is known apart from that of successes. The bounds are those of
OpenTelemetry's http.server.request.duration.
"""

from bisect import bisect_left
from math import inf
from time import time

from sdserve.immutable import Immutable

CELL_BYTES = 1536
WORDS = CELL_BYTES // 8

# "gone": the client went away before its answer began. A status above 599 counts as 5xx (RFC 9110 section 15).
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "gone")
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)  # seconds, upper ends
FIRST_BOUND = BOUNDS[0]
BUCKETS = len(BOUNDS) + 1  # the last one has no upper end
ROW = BUCKETS + 1  # and the sum of the seconds, a float

# Why workers end: see `cause_of_end` in arbiter/worker_handle.py.
CAUSES = ("told", "recycled", "timeout", "late", "killed", "crashed", "exited", "boot")
OUTCOMES = ("succeeded", "failed")

# Words that only grow.
ANSWERS = 0  # a row for each of CLASSES
QUEUED = len(CLASSES) * ROW  # a row: seconds that requests had waited before they came here
ACCEPTED, ADOPTED, GIVEN_AWAY, DROPPED = range(QUEUED + ROW, QUEUED + ROW + 4)
EXITS = DROPPED + 1  # one for each of CAUSES
RELOADS = EXITS + len(CAUSES)  # one for each of OUTCOMES
UPGRADES = RELOADS + len(OUTCOMES)  # one for each of OUTCOMES
# What nearly every turn of a worker's loop counts has words of its own, which `quick` alone writes: answers by 2xx
# within the first bound, which `Totals` adds to that bucket, and their seconds; then the body bytes of all answers.
QUICK = UPGRADES + len(OUTCOMES)
QUICK_SECONDS, BYTES = QUICK + 1, QUICK + 2
GROWING = BYTES + 1
FLOATS = (*range(BUCKETS, QUEUED + ROW, ROW), QUICK_SECONDS)

# Words that say what is now. BORN is in monotonic seconds, BEGAN (a master's) in seconds since the epoch. INDEX is the
# owner's cell of the scoreboard, MASTER the pid of a worker's master. THREADS is how many call the application, 0 if an
# event loop does; BUSY is how many requests are in it. POLLS is how often a worker has answered its master that it
# polls, from 1 on; 0 if nobody polls at rest, so that nobody could answer.
LIVE = 160
STATE, PID, SLOT, GENERATION, BORN, INDEX, STOPPED, THREADS, BUSY, OPEN, WANTED, MASTER, POLLS = range(LIVE, LIVE + 13)
BEGAN = LIVE + 13
assert GROWING <= LIVE

# Values of STATE: 0 in a cell of nobody, then what a master is doing, or what it knows of a worker.
STATES = ("", "starting", "serving", "draining", "stopping", "booting", "retiring", "aborted", "killed", "gone")

_ROWS = {str(digit): ANSWERS + max(0, min(digit, 5) - 1) * ROW for digit in range(10)} | {"": ANSWERS + 5 * ROW}

# A broken neighbour may have written this into our cell: counting goes on at 0, and never raises.
LARGEST = (1 << 64) - 1
BELIEVED = 1 << 63  # nobody counts so far: a word from here on was written by a broken neighbour


class CounterCell:
    """The words of one process, from `at` on. `words` and `floats` are the same memory; `rows` has the place of a
    status's row in it, by the first character of the status ("" for none). What `quick` has counted is known here, too,
    and need not be read back.
    """

    __slots__ = ("_number", "_quick", "_seconds", "_size", "at", "floats", "index", "rows", "words")

    def __init__(self, index: int, at: int, words: "memoryview[int]", floats: "memoryview[float]") -> None:
        self.index = index
        self.at = at
        self.words = words
        self.floats = floats
        self.rows = {first: at + row for first, row in _ROWS.items()}
        self._quick = at + QUICK
        self._number = -1  # before the first

    @classmethod
    def private(cls) -> "CounterCell":
        """A cell that nobody reads, for a worker without one in shared memory."""
        memory = memoryview(bytearray(CELL_BYTES))
        return cls(0, 0, memory.cast("Q"), memory.cast("d"))

    def add(self, word: int, number: int = 1) -> None:
        at = self.at + word
        self.words[at] = self.words[at] + number & LARGEST

    def quick(self, number: int, seconds: float, size: int) -> None:
        """Counts `number` requests answered by 2xx, each within the first bound, and `seconds` for all of them; and
        `size` bytes of bodies, of answers of any kind."""
        if self._number < 0:
            self.mend()
            self._number, self._seconds, self._size = self.get(QUICK), self.floats[self._quick + 1], self.get(BYTES)
        self._number = number = self._number + number
        self._seconds = seconds = self._seconds + seconds
        self._size = size = self._size + size
        # One store each. Struct.pack_into would clear all three first, and a reader, or a KILL, might find them at 0.
        words, at = self.words, self._quick
        words[at] = number
        self.floats[at + 1] = seconds
        words[at + 2] = size

    def answered(self, status: str, seconds: float) -> None:
        """Counts a request that was answered with `status` after `seconds`."""
        self._observe(self.rows[status[:1]], seconds)

    def queued(self, seconds: float) -> None:
        """Counts a request that waited for `seconds` before it came here."""
        self._observe(self.at + QUEUED, seconds)

    def _observe(self, row: int, seconds: float) -> None:
        at = row + bisect_left(BOUNDS, seconds)
        self.words[at] = self.words[at] + 1 & LARGEST
        self.floats[row + BUCKETS] += seconds

    def get(self, word: int) -> int:
        return int(self.words[self.at + word])

    def set(self, word: int, value: int) -> None:
        self.words[self.at + word] = value

    @property
    def state(self) -> str:
        """One of STATES; "" also if a broken neighbour has overwritten it."""
        code = self.get(STATE)
        return STATES[code] if code < len(STATES) else ""

    @state.setter
    def state(self, name: str) -> None:
        self.set(STATE, STATES.index(name))

    @property
    def born(self) -> float:
        """When the process began, in monotonic seconds."""
        return float(self.floats[self.at + BORN])

    @born.setter
    def born(self, when: float) -> None:
        self.floats[self.at + BORN] = when

    @property
    def began(self) -> float:
        """When the master began, in seconds since the epoch: the same at each look, whatever becomes of the clock."""
        return float(self.floats[self.at + BEGAN])

    def begin(self, pid: int, now: float) -> None:
        """Shows a master that begins at `now` (monotonic seconds)."""
        self.set(PID, pid)
        self.born = now
        self.floats[self.at + BEGAN] = time()

    def mend(self) -> None:
        """Sets counts that a broken process has overwritten to zero, for the next owner to count on from."""
        for word in range(GROWING):
            if self.get(word) >= BELIEVED or (word in FLOATS and not self.floats[self.at + word] < inf):
                self.set(word, 0)

    def leave(self) -> None:
        """The owner has ended: clears what it was doing, and keeps what it counted."""
        for word in range(LIVE, WORDS):
            self.set(word, 0)


class Row(Immutable):
    """One histogram: how many requests are in each bucket, and the sum of their seconds."""

    buckets: tuple[int, ...]
    seconds: float

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def __add__(self, other: "Row") -> "Row":
        both = zip(self.buckets, other.buckets, strict=True)
        return Row(tuple(one + another for one, another in both), self.seconds + other.seconds)

    def __sub__(self, before: "Row") -> "Row":
        both = zip(self.buckets, before.buckets, strict=True)
        return Row(tuple(one - another for one, another in both), self.seconds - before.seconds)

    def quantile(self, share: float) -> float | None:
        """The lowest bound in seconds that this share of all kept; inf beyond the last bound, None without any."""
        wanted, seen = share * self.count, 0
        if not wanted:
            return None
        for bound, number in zip((*BOUNDS, inf), self.buckets, strict=True):
            seen += number
            if seen >= wanted:
                return bound
        return inf


class Totals(Immutable):
    """All that was counted: the sum of each growing word over all cells."""

    words: tuple[int, ...]
    floats: dict[int, float]

    def row(self, first: int) -> Row:
        """The histogram that begins at the word `first`."""
        return Row(self.words[first : first + BUCKETS], self.floats[first + BUCKETS])

    @property
    def answers(self) -> dict[str, Row]:
        """By class of status."""
        rows = {name: self.row(ANSWERS + number * ROW) for number, name in enumerate(CLASSES)}
        rows["2xx"] += Row((self.words[QUICK], *[0] * (BUCKETS - 1)), self.floats[QUICK_SECONDS])
        return rows

    @property
    def queued(self) -> Row:
        return self.row(QUEUED)

    def by_name(self, first: int, names: tuple[str, ...]) -> dict[str, int]:
        """The words from `first` on, by `names`: EXITS by CAUSES, RELOADS and UPGRADES by OUTCOMES."""
        return dict(zip(names, self.words[first : first + len(names)], strict=True))
