"""Request bodies: small in memory, large on disk, refused where there is no room, and never too slow."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdserve.http.errors import InsufficientStorage, Unavailable
from sdserve.http.limits import Times
from sdserve.workers.http.body import IN_MEMORY, Body
from sdserve.workers.http.deadlines import Arrival
from sdserve.workers.http.spool import Quota
from tests.support.processes import own_descriptors


@pytest.mark.parametrize("size", [0, 10, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
@pytest.mark.parametrize("piece", [1000, 50_000])
def test_a_body_is_read_back_as_it_came(size: int, piece: int) -> None:
    before = own_descriptors()
    data = os.urandom(size)
    quota = Quota(0)
    body = Body(quota)
    for at in range(0, size, piece):
        body.append(data[at : at + piece])
    assert body.size == size
    reader = body.reader()
    assert reader.read(7) == data[:7]
    assert reader.read() == data[7:]
    on_disk = size > IN_MEMORY
    assert (len(own_descriptors()) > len(before), quota.used > 0) == (on_disk, on_disk)
    body.close()
    body.close()
    assert (own_descriptors(), quota.used) == (before, 0)
    if on_disk:
        with pytest.raises(ValueError, match="closed"):  # not somebody else's file, by the same number
            reader.read()


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than a MiB: what a full disk does, without one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("piece", [1000, 65536, 2 << 20])
def test_a_disk_without_room_is_the_requests_failure_alone(small_files: None, piece: int) -> None:
    before = own_descriptors()
    quota = Quota(0)
    body = Body(quota)
    with pytest.raises(InsufficientStorage, match=os.strerror(errno.EFBIG)):
        while True:
            body.append(bytes(piece))
    body.close()
    assert (own_descriptors(), quota.used) == (before, 0)


def test_a_directory_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    with pytest.raises(InsufficientStorage, match="gone: No such file"):
        Body(Quota(0)).append(bytes(IN_MEMORY + 1))


def test_without_descriptors_it_may_be_tried_again() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
    try:
        with pytest.raises(Unavailable) as caught:
            Body(Quota(0)).append(bytes(IN_MEMORY + 1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.retry_after


def test_all_bodies_together_are_bounded() -> None:
    quota = Quota(3 * IN_MEMORY)
    first, second, small = Body(quota), Body(quota), Body(quota)
    first.append(bytes(2 * IN_MEMORY))
    with pytest.raises(Unavailable, match="spool_limit"):
        second.append(bytes(2 * IN_MEMORY))
    small.append(bytes(IN_MEMORY))
    second.close()
    first.close()
    third = Body(quota)
    third.append(bytes(3 * IN_MEMORY))
    third.close()
    assert quota.used == 0


# --- how a body may arrive --------------------------------------------------------------------------------------------

TIMES = Times(body_rate=100, body_grace=10, body_idle=20)


def arrival(*received: tuple[int, float], times: Times = TIMES) -> float:
    """When a body is too slow of which so many bytes came at such times."""
    found = Arrival(times, 0.0)
    for size, at in received:
        assert at < found.due(), "it was too slow before"
        found.received(size, at)
    return found.due()


def test_the_rate_counts_after_the_grace() -> None:
    assert arrival() == 10
    assert arrival((1, 1)) == 10
    assert arrival((1100, 5)) == 11
    assert arrival((1100, 5), (500, 10)) == 16


def test_silence_ends_it_whatever_came_before() -> None:
    assert arrival((1 << 30, 1)) == 21
    assert arrival((1 << 30, 1), (1, 20)) < 21.1  # a byte now and then does not do either


def test_what_is_switched_off_does_not_count() -> None:
    assert arrival(times=Times(body_rate=0, body_grace=10, body_idle=20)) == 20
    assert arrival(times=Times(body_rate=100, body_grace=10, body_idle=0)) == 10
    assert arrival(times=Times(body_rate=0, body_grace=10, body_idle=0)) == float("inf")


@given(st.lists(st.tuples(st.integers(1, 1 << 30), st.floats(0.001, 30))))
def test_no_beginning_buys_more_than_the_time_between_reads(steps: list[tuple[int, float]]) -> None:
    now, found = 0.0, Arrival(TIMES, 0.0)
    for size, pause in steps:
        now += pause
        if now >= found.due():
            return
        found.received(size, now)
        assert found.due() <= now + 20
