"""Request bodies: small in memory, large on disk, and never too slow."""

import os

import pytest

from sdserve.http.limits import Times
from sdserve.workers.body import IN_MEMORY, Spool, too_slow


@pytest.mark.parametrize("size", [0, 10, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
def test_a_body_is_read_back_as_it_came(size: int) -> None:
    before = set(os.listdir("/proc/self/fd"))
    data = os.urandom(size)
    spool = Spool()
    for at in range(0, size, 50_000):
        spool.append(data[at : at + 50_000])
    assert spool.size == size
    reader = spool.reader()
    assert reader.read(7) == data[:7]
    assert reader.read() == data[7:]
    assert (len(os.listdir("/proc/self/fd")) > len(before)) == (size > IN_MEMORY)
    spool.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_rate_counts_after_the_grace() -> None:
    times = Times(body_rate=100, body_grace=10)
    assert not too_slow(times, 0, 9)
    assert too_slow(times, 1000, 11)
    assert not too_slow(times, 1101, 11)
    assert not too_slow(Times(body_rate=0), 0, 1000)
