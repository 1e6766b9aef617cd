"""What a peer does not take is kept in order, in memory and beyond it on disk, and sent when it does."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdserve.gateway.response import ClientGone
from sdserve.workers.outbox import IN_MEMORY, PATIENCE, Outbox

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def drain(outbox: Outbox, pair: Pair, size: int) -> bytes:
    got = bytearray()

    def read() -> None:
        while len(got) < size:
            got.extend(pair[1].recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    while not outbox.flush():
        reader.join(0.001)
    reader.join(20)
    return bytes(got)


def test_order_is_kept_through_memory_disk_and_files(pair: Pair, tmp_path: Path) -> None:
    before = descriptors()
    outbox = Outbox(pair[0])
    pieces = [os.urandom(50_000) for _ in range(60)]
    for piece in pieces[:40]:
        outbox.push(piece, 5)
    assert outbox.in_memory <= IN_MEMORY
    path = tmp_path / "file"
    path.write_bytes(b"head" + pieces[40] + b"tail")
    with path.open("rb") as file:
        outbox.push_file(file.fileno(), 4, len(pieces[40]))
    for piece in pieces[41:]:
        outbox.push(piece, 5)
    sent = b"".join(pieces)
    assert drain(outbox, pair, len(sent)) == sent
    assert outbox.empty
    assert descriptors() == before


def test_closing_it_leaks_nothing(pair: Pair) -> None:
    before = descriptors()
    outbox = Outbox(pair[0])
    for _ in range(20):
        outbox.push(b"x" * 100_000, 5)
    assert len(descriptors()) == len(before) + 1
    outbox.close()
    assert descriptors() == before


def test_a_peer_that_left_is_reported(pair: Pair) -> None:
    outbox = Outbox(pair[0])
    outbox.push(b"x" * 1000, 5)
    pair[1].close()
    with pytest.raises(ClientGone):
        outbox.flush()


def test_a_file_that_shrank_is_reported(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    outbox = Outbox(pair[0])
    with path.open("rb") as file:
        outbox.push_file(file.fileno(), 0, 10)
    with pytest.raises(ClientGone, match="shorter"):
        while not outbox.flush():
            pass
    outbox.close()


def test_after_a_wait_in_vain_the_next_who_does_not_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outbox, "_no_wait_before", 0.0)
    patience = []
    for _ in range(2):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            outbox = Outbox(ours)
            for _ in range(40):
                outbox.push(bytes(65536), 5)
            assert outbox.in_memory <= IN_MEMORY
            patience.append(outbox._patience)
            outbox.close()
    assert patience == [0.0, PATIENCE]
