"""What a peer does not take is kept in order, in memory and beyond it on disk, and sent when it does."""

import math
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sdserve.http.writer import ClientGone, NoRoom
from sdserve.workers.http import write_buffer
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import IN_MEMORY, PATIENCE, PUSHED, Memory, Store, Waits, WriteBuffer
from tests.support.processes import own_descriptors

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def store() -> Store:
    return made()


def made(disk: int = 0, wait: float = 5, *, alone: bool = False) -> Store:
    store = Store(Quota(disk), SAID.append, 5, Waits(wait, alone))
    SAID.clear()
    return store


SAID: list[str] = []


def drain(unsent: WriteBuffer, pair: Pair, size: int) -> bytes:
    got = bytearray()

    def read() -> None:
        while len(got) < size:
            got.extend(pair[1].recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    while not unsent.flush():
        reader.join(0.001)
    reader.join(20)
    return bytes(got)


def test_order_is_kept_through_memory_disk_and_files(pair: Pair, store: Store, tmp_path: Path) -> None:
    before = own_descriptors()
    unsent = WriteBuffer(pair[0], store)
    pieces = [os.urandom(50_000) for _ in range(60)]
    for piece in pieces[:40]:
        unsent.push(piece)
    assert unsent.in_memory <= PUSHED
    assert store.disk.used > 1_000_000
    path = tmp_path / "file"
    path.write_bytes(b"head" + pieces[40] + b"tail")
    with path.open("rb") as file:
        unsent.push_file(file.fileno(), 4, len(pieces[40]))
        for piece in pieces[41:]:
            unsent.push(piece)
        sent = b"".join(pieces)
        assert unsent.left + unsent.moved == len(sent)
        assert drain(unsent, pair, len(sent)) == sent
    assert unsent.empty
    assert (unsent.left, store.disk.used, store.memory.used) == (0, 0, 0)
    assert own_descriptors() == before


def test_closing_it_leaks_nothing(pair: Pair, store: Store) -> None:
    before = own_descriptors()
    unsent = WriteBuffer(pair[0], store)
    for _ in range(20):
        unsent.push(b"x" * 100_000)
    assert len(own_descriptors()) == len(before) + 1
    unsent.close()
    assert own_descriptors() == before
    assert (store.disk.used, store.memory.used) == (0, 0)


def test_a_whole_body_stays_where_it_is_while_all_of_them_are_within_the_bound(pair: Pair, store: Store) -> None:
    constant = bytes(10 << 20)
    buffers = [WriteBuffer(pair[0], store) for _ in range(200)]
    for unsent in buffers:
        unsent.push(constant, 5, whole=True)
    assert (store.memory.used, store.disk.used) == (len(constant), 0)  # the same object, two hundred times
    others = [WriteBuffer(pair[0], store) for _ in range(4)]
    for number, unsent in enumerate(others):
        unsent.push(bytes([number]) * (10 << 20), whole=True)
    assert store.memory.used <= IN_MEMORY
    assert store.disk.used == 20 << 20
    for unsent in (*buffers, *others):
        unsent.close()
    assert (store.memory.used, store.disk.used) == (0, 0)


@contextmanager
def delivered(unsent: WriteBuffer, client: socket.socket) -> Iterator[list[bytes]]:
    """Six megabytes, to be pushed inside of it: all of them reach a client that begins to read a moment later."""
    pieces = [os.urandom(100_000) for _ in range(60)]
    sent, got = b"".join(pieces), bytearray()

    def read() -> None:
        while len(got) < len(sent):
            got.extend(client.recv(1 << 20))

    reader = threading.Timer(0.2, read)
    reader.start()
    yield pieces
    while not unsent.flush():
        reader.join(0.001)
    reader.join(20)
    assert got == sent


def test_without_room_on_the_disk_a_writer_waits_for_its_client(pair: Pair) -> None:
    store = made(disk=1 << 20)
    unsent = WriteBuffer(pair[0], store)
    with delivered(unsent, pair[1]) as pieces:
        for piece in pieces:
            unsent.push(piece)
            assert unsent.left < (1 << 20) + PUSHED + 100_000
    assert len(SAID) == 1 and "spool_limit" in SAID[0]


def test_without_any_room_a_whole_body_that_nobody_reads_ends(pair: Pair) -> None:
    """Neither do others wait for its client, nor is the bound of memory passed."""
    store = made(disk=1)
    held = bytes(IN_MEMORY)
    assert store.memory.hold(held)
    unsent = WriteBuffer(pair[0], store)
    with pytest.raises(ClientGone, match="no room"):
        unsent.push(os.urandom(100_000), whole=True)
    unsent.close()
    assert store.memory.used == IN_MEMORY
    assert len(SAID) == 1


def test_a_disk_that_fails_costs_no_byte(pair: Pair, store: Store) -> None:
    unsent = WriteBuffer(pair[0], store)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with delivered(unsent, pair[1]) as pieces:
        resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, limits[1]))
        try:
            for piece in pieces:
                unsent.push(piece)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(SAID) == 1 and "File too large" in SAID[0]


def test_who_waits_for_a_client_that_takes_nothing_gives_it_up(pair: Pair) -> None:
    unsent = WriteBuffer(pair[0], made(disk=1, wait=0.05))
    with pytest.raises(NoRoom, match=r"no room for what write\(\) sends"):
        while True:
            unsent.push(bytes(100_000))
    unsent.close()


def test_who_waits_for_a_client_that_takes_a_little_gives_it_up_too(pair: Pair) -> None:
    unsent = WriteBuffer(pair[0], made(disk=1, wait=0.2))
    given_up = threading.Event()

    def sip() -> None:
        while not given_up.wait(0.001):
            pair[1].recv(1000)

    reader = threading.Thread(target=sip)
    reader.start()
    with pytest.raises(NoRoom, match="no room"):
        while True:
            unsent.push(bytes(10_000_000))
    given_up.set()
    reader.join()
    with pytest.raises(NoRoom):  # a piece is missing, and the application may not have noticed
        unsent.push(b"what follows")
    with pytest.raises(NoRoom):
        unsent.flush()
    unsent.close()


def test_how_long_write_may_wait() -> None:
    """A thread among others waits anew each time, one that is alone not beyond its call's share of the time-out."""
    assert Waits.within(60, 30, alone=False).until(called=100, now=120) == 135
    assert Waits.within(60, 30, alone=True).until(called=100, now=120) == 115
    assert Waits.within(60, 0, alone=True).until(called=100, now=120) == 160
    assert Waits.within(0, 0, alone=False).until(called=100, now=120) == math.inf


def test_a_peer_that_left_is_reported(pair: Pair, store: Store) -> None:
    unsent = WriteBuffer(pair[0], store)
    unsent.push(b"x" * 1000)
    pair[1].close()
    with pytest.raises(ClientGone):
        unsent.flush()


def test_a_file_that_shrank_is_reported(pair: Pair, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    unsent = WriteBuffer(pair[0], store)
    with path.open("rb") as file:
        unsent.push_file(file.fileno(), 0, 10)
        with pytest.raises(ClientGone, match="shorter"):
            while not unsent.flush():
                pass
    unsent.close()


def test_after_a_wait_in_vain_the_next_who_does_not_read_is_not_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_buffer, "LESSON", 600)
    patience = []
    for _ in range(2):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            unsent = WriteBuffer(ours, store)
            for _ in range(40):
                unsent.push(os.urandom(65536))
            assert unsent.in_memory <= PUSHED
            patience.append(unsent._patience)
            unsent.close()
    assert patience == [0.0, PATIENCE]


def test_an_object_counts_once_and_as_long_as_anybody_holds_it() -> None:
    memory = Memory(limit=1000)
    first, second = bytes(600), bytes(601)
    assert memory.hold(first) and memory.hold(first)
    assert not memory.hold(second)
    memory.release(first)
    assert not memory.hold(second)
    memory.release(first)
    assert memory.hold(second)
    assert memory.hold(first, anyway=True)
    assert memory.used == 1201
