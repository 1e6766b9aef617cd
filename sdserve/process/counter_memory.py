"""The memory of all counters of a service: a memfd that every master of it maps, one after the other or two at a time.

It is passed on at an upgrade, and kept in systemd's fd store over a restart and a kill -9 (memfd_create(2)). What
comes back is believed only if it is what we make: a memfd of the right size that cannot shrink under us, with our mark
and the layout of this version. Anything else is left alone, and counting starts anew with another `created`, as readers
of counters expect.

Cells are given out in blocks. A master locks a block before it uses it, and so no two masters ever write to one: an
open file description lock (fcntl(2)) of a description that the master alone has opened, which its workers share with
the mapping. The kernel drops it when the last of them has gone, however they end; the block then belongs to whoever
comes.
"""

import errno
import fcntl
import math
import mmap
import os
import stat
import struct
import time
from collections.abc import Iterable, Iterator

from sdserve.descriptor import Descriptor
from sdserve.errors import in_words
from sdserve.process.counters import BELIEVED, CELL_BYTES, FLOATS, GROWING, WORDS, CounterCell, Totals

MARK = int.from_bytes(b"sdserve\0", "little")
LAYOUT = 2  # a new number whenever a word moves, or its meaning changes, here or in counters.py
HEADER_BYTES = 4096
CELLS = 32  # of a block
BLOCK_BYTES = CELLS * CELL_BYTES
BLOCKS = 128
SIZE = HEADER_BYTES + BLOCKS * BLOCK_BYTES  # what nobody has written to costs no memory
MARKED, LAID_OUT, LENGTH, CREATED = range(4)  # words of the header
USED = 16  # from here on a word for each block: how many of its cells have ever been in use
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_LOCK = struct.Struct("hhqqi4x")  # struct flock, with 64-bit offsets


def obtain(passed: Iterable[int]) -> tuple["CounterMemory", str]:
    """The memory on the first of these descriptors that is ours, else a new one; the others are closed.

    Also returns what is wrong, or "": something was passed that cannot be used, or the memory ends with this master.
    """
    found, trouble = None, ""
    for fd in passed:
        if found is not None:
            os.close(fd)
            continue
        try:
            found = CounterMemory.found(fd)
        except (OSError, ValueError) as error:
            trouble = f"the old counters cannot be used, counting starts anew: {error}"
    if found is not None:
        return found, ""
    try:
        return CounterMemory.new(), trouble
    except (OSError, ValueError) as error:
        return CounterMemory.private(), f"no memory for counters that outlive this master: {in_words(error)}"


class CounterMemory:
    """The mapping, and the cells that this master gives out.

    shared: the memfd that others get, None if the memory is this master's alone
    opened: our own description of it, which holds the locks; None likewise
    fresh: nobody has counted here before this master
    """

    fresh = True

    def __init__(self, memory: mmap.mmap, shared: Descriptor | None, opened: Descriptor | None) -> None:
        view = memoryview(memory)
        self.shared = shared
        self._opened = opened
        self._words = view.cast("Q")
        self._floats = view.cast("d")
        self._blocks = 0  # how many blocks this master has tried to lock
        self._free: list[int] = []

    @classmethod
    def private(cls) -> "CounterMemory":
        """A memory that ends with this master and its workers."""
        return cls(mmap.mmap(-1, SIZE), None, None)._begun()

    @classmethod
    def new(cls) -> "CounterMemory":
        """A memory of its own. Raises OSError if a memfd cannot be made, or not be opened again."""
        shared = Descriptor(os.memfd_create("sdserve-counters", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        try:
            os.ftruncate(shared.fileno(), SIZE)
            fcntl.fcntl(shared.fileno(), fcntl.F_ADD_SEALS, SEALS)
            return cls._mapped(shared)._begun()
        except BaseException:
            shared.close()
            raise

    @classmethod
    def found(cls, fd: int) -> "CounterMemory":
        """The memory behind a descriptor that somebody passed. If it is not ours, the descriptor is closed.

        Raises ValueError if it is something else, or of another version; OSError if it cannot be opened again.
        """
        shared = Descriptor(fd)
        try:
            os.set_inheritable(fd, False)
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != SIZE:
                raise ValueError(f"{found.st_size} bytes are not a memory of counters of this version")
            if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS:  # EINVAL where it is no memfd
                raise ValueError("a memfd that can shrink is not a memory of counters")
            memory = cls._mapped(shared)
        except BaseException:
            shared.close()
            raise
        try:
            memory._check()
        except ValueError:
            memory.close()
            raise
        memory.fresh = False
        return memory

    @classmethod
    def _mapped(cls, shared: Descriptor) -> "CounterMemory":
        opened = Descriptor(os.open(f"/proc/self/fd/{shared.fileno()}", os.O_RDWR | os.O_CLOEXEC))
        try:
            return cls(mmap.mmap(opened.fileno(), SIZE), shared, opened)
        except BaseException:
            opened.close()
            raise

    def _begun(self) -> "CounterMemory":
        words = self._words
        words[LAID_OUT], words[LENGTH], self._floats[CREATED] = LAYOUT, SIZE, time.time()
        words[MARKED] = MARK
        return self

    def _check(self) -> None:
        said = self._words[MARKED], self._words[LAID_OUT], self._words[LENGTH]
        created = self.created
        if said != (MARK, LAYOUT, SIZE) or not (math.isfinite(created) and created > 0):
            raise ValueError(f"a memfd is not a memory of counters of this version: it says {said}")

    @property
    def created(self) -> float:
        """When counting began, in seconds since the epoch."""
        return float(self._floats[CREATED])

    def close(self) -> None:
        """Lets go of the descriptors, as forked children do; the memory stays mapped."""
        for each in filter(None, (self.shared, self._opened)):
            each.close()

    def take(self) -> CounterCell:
        """A cell of one's own. Raises OSError (EAGAIN) when thousands of workers are alive."""
        while not self._free:
            self._take_block()
        index = self._free.pop()
        block, number = divmod(index, CELLS)
        self._words[USED + block] = max(self._words[USED + block], number + 1)
        cell = self._cell(index)
        cell.leave()
        cell.mend()
        return cell

    def give_back(self, cell: CounterCell) -> None:
        """The cell's owner has ended."""
        cell.leave()
        self._free.append(cell.index)

    def _take_block(self) -> None:
        """Makes the next block that nobody uses this master's own."""
        while self._blocks < BLOCKS:
            block, self._blocks = self._blocks, self._blocks + 1
            if self._lock(block):
                first = block * CELLS
                self._free = list(range(first + CELLS - 1, first - 1, -1))
                return
        raise OSError(errno.EAGAIN, "there is no room for the counters of one more worker")

    def _lock(self, block: int) -> bool:
        if self._opened is None:
            return True
        where = HEADER_BYTES + block * BLOCK_BYTES
        lock = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, where, BLOCK_BYTES, 0)
        try:
            fcntl.fcntl(self._opened.fileno(), fcntl.F_OFD_SETLK, lock)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def _cell(self, index: int) -> CounterCell:
        return CounterCell(index, HEADER_BYTES // 8 + index * WORDS, self._words, self._floats)

    def cells(self) -> Iterator[CounterCell]:
        """All cells that have ever been in use. Those that a process has now have a `state`."""
        for block in range(BLOCKS):
            for number in range(min(CELLS, self._words[USED + block])):
                yield self._cell(block * CELLS + number)

    def totals(self) -> Totals:
        """The sums over all cells. They only grow, unless a broken worker has overwritten what it had counted."""
        words, floats = [0] * GROWING, dict.fromkeys(FLOATS, 0.0)
        for cell in self.cells():
            counted = self._words[cell.at : cell.at + GROWING].tolist()  # of those that are floats it means nothing
            words = [one + other if other < BELIEVED else one for one, other in zip(words, counted, strict=True)]
            for word in FLOATS:
                seconds = self._floats[cell.at + word]
                floats[word] += seconds if 0.0 <= seconds < math.inf else 0.0  # else a broken worker wrote it
        return Totals(tuple(words), floats)
