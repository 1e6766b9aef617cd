"""When a worker asks to be replaced."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sdserve.workers import recycling
from sdserve.workers.recycling import Recycling


@contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_memory_than_it_may_hold() -> None:
    assert "MiB of memory" in Recycling(0, 0, 1).reason(1)


def test_memory_is_unknown_to_a_worker_without_descriptors() -> None:
    with no_descriptors():
        reason = Recycling(0, 0, 1).reason(1)
    assert reason == ""


def test_so_is_its_share_of_what_it_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycling, "resident", lambda: 1 << 40)
    with no_descriptors():
        reason = Recycling(0, 0, 1).reason(1)
    assert reason == ""
