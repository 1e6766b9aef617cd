"""Large pieces that leave together: whatever their sizes are, and however their client reads."""

import contextlib
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdserve.http.connection import Connection
from sdserve.http.limits import Limits
from sdserve.http.request import RequestReader
from sdserve.http.writer import ClientGone
from sdserve.workers.asgi.bursts import BULK, LITTLE, MUCH, Burst, Bursts
from sdserve.workers.asgi.client import ASGIClient
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store

LARGE = b"x" * 16384


class Counted(ASGIClient):
    """`calls` are the sizes that were sent, or tried to be."""

    calls: list[int]

    def send(self, data: bytes) -> None:
        self.calls.append(len(data))
        super().send(data)

    def send_parts(self, parts: Any, *, whole: bool) -> None:
        self.calls.append(sum(map(len, parts)))
        super().send_parts(parts, whole=whole)


class Worker:
    """A client with an answer in pieces, and what the worker hears of it."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.theirs.setblocking(False)
        conn, store = Connection(RequestReader(Limits()), Limits()), Store(Quota(0), print, 5)
        self.client = Counted(ours, conn, {}, ("", ""), store, ("", 0))
        self.client.calls = []
        self.told: list[str] = []
        say = self.told.append
        host: Any = SimpleNamespace(lost=lambda call, why: say("gone"), wants_room=lambda call: say("full"))
        call: Any = None
        self.bursts = Bursts(host, lambda: say("settle"))
        self.burst = self.client.burst = Burst(call, self.client, self.bursts)

    def read(self, most: int = 1 << 20) -> bytes:
        """What the client reads now."""
        with contextlib.suppress(BlockingIOError):
            return self.theirs.recv(most)
        return b""

    def read_all(self) -> bytes:
        found = b""
        while True:
            done, data = self.client.flush(), self.read()
            if done and not data:
                return found
            found += data


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.client.close()
    worker.theirs.close()


def test_large_ones_leave_together_before_the_loop_polls(worker: Worker) -> None:
    worker.burst.send(LARGE)
    worker.burst.send_parts((b"4000\r\n", LARGE, b"\r\n"), whole=True)
    assert (worker.client.calls, worker.told) == ([], ["settle"])
    assert worker.client.owed == worker.burst.size == 2 * len(LARGE) + 8
    worker.bursts.release()
    assert worker.client.calls == [2 * len(LARGE) + 8] and not worker.client.owed
    assert worker.read() == LARGE + b"4000\r\n" + LARGE + b"\r\n"
    worker.bursts.release()
    assert len(worker.client.calls) == 1


def test_a_small_one_leaves_at_once_with_all_before_it(worker: Worker) -> None:
    worker.burst.send(b"token")
    assert worker.read() == b"token"
    worker.burst.send(LARGE)
    worker.burst.send(b"x" * (BULK - 1))
    assert worker.client.calls == [5, len(LARGE) + BULK - 1]


def test_enough_is_more_for_who_takes_it_and_little_again_for_who_does_not(worker: Worker) -> None:
    for calls in ([LITTLE], [LITTLE, 2 * LITTLE]):
        while worker.client.calls != calls:
            worker.burst.send(LARGE)
        assert len(worker.read_all()) == calls[-1]
    while not worker.burst.full:
        worker.burst.send(LARGE)
    assert worker.client.calls[2] == MUCH
    worker.read_all()
    worker.client.calls.clear()
    while not worker.client.calls:
        worker.burst.send(LARGE)
    assert worker.client.calls == [LITTLE]


def test_the_worker_hears_of_a_client_that_takes_only_a_part(worker: Worker) -> None:
    worker.burst.send(b"x" * (LITTLE - 1))
    worker.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    worker.bursts.release()
    assert worker.told == ["settle", "full"] and 0 < worker.client.owed < LITTLE


def test_one_that_has_gone_is_told_of_once(worker: Worker) -> None:
    worker.burst.send(LARGE)
    worker.theirs.close()
    worker.bursts.release()
    assert worker.told == ["settle", "gone"] and worker.client.owed == len(LARGE), "nobody has it"
    worker.client.close()
    worker.bursts.release()
    assert worker.told == ["settle", "gone"] and not worker.client.owed


def test_what_is_sent_at_once_says_itself_that_nobody_is_there(worker: Worker) -> None:
    worker.theirs.close()
    worker.burst.send(LARGE)
    with pytest.raises(ClientGone):
        worker.burst.send(b"the end")


PIECES = st.one_of(st.integers(1, 20), st.sampled_from([BULK - 1, BULK, LITTLE, MUCH]), st.integers(1, 100_000))
STEPS = st.lists(
    st.one_of(st.tuples(st.just("send"), PIECES), st.tuples(st.just("read"), PIECES), st.just(("turn", 0)))
)


@given(steps=STEPS)
def test_everything_comes_in_order_and_little_waits(steps: list[tuple[str, int]]) -> None:
    worker = Worker()
    sent, heard, number = bytearray(), bytearray(), 0
    try:
        for what, size in steps:
            if what == "send":
                number += 1
                data = bytes((number % 251,)) * size
                sent += data
                worker.burst.send(data) if number % 3 else worker.burst.send_parts((data, data[:0]), whole=True)
            elif what == "read":
                heard += worker.read(size)
                worker.client.flush()
            else:
                worker.bursts.release()
                assert not worker.burst.size
            assert not (worker.burst.size and worker.client.unsent), "who waits for room, waits for all of it"
            assert worker.burst.size < MUCH
        worker.bursts.release()
        heard += worker.read_all()
        assert heard == sent
    finally:
        worker.client.close()
        worker.theirs.close()
