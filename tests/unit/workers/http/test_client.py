"""How an answer leaves by the socket of its client."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from sdserve.http.connection import Connection
from sdserve.http.limits import Limits
from sdserve.http.request import RequestReader
from sdserve.http.writer import ClientGone
from sdserve.workers.http.client import Client
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store

HEAD, FILE = b"HTTP/1.1 200 OK\r\n\r\n", b"0123456789" * 100
SEGMENTS = slice(156, 160)  # tcp_info.tcpi_data_segs_out (linux/tcp.h)


@pytest.fixture
def pair() -> Iterator[tuple[Client, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    client = Client(ours, Connection(RequestReader(Limits()), Limits()), {}, ("", ""), Store(Quota(0), print, 5))
    yield client, theirs
    client.close()
    theirs.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[IO[bytes]]:
    path = tmp_path / "file"
    path.write_bytes(FILE)
    with path.open("rb") as file:
        yield file


def segments(client: Client) -> int:
    (count,) = struct.unpack("I", client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)[SEGMENTS])
    return int(count)


def received(theirs: socket.socket, size: int) -> bytes:
    return theirs.recv(size, socket.MSG_WAITALL)


def test_a_file_shares_a_packet_with_its_head(pair: tuple[Client, socket.socket], file: IO[bytes]) -> None:
    client, theirs = pair
    client.send_file(HEAD, file.fileno(), 10, 500)
    assert not client.full and segments(client) == 1
    assert received(theirs, len(HEAD) + 500) == HEAD + FILE[10:510]


def test_a_head_alone_does_not_wait(pair: tuple[Client, socket.socket]) -> None:
    client, theirs = pair
    client.send(HEAD)
    assert segments(client) == 1 and received(theirs, len(HEAD)) == HEAD


@pytest.mark.parametrize("head", [HEAD, b""])
def test_a_file_goes_behind_what_has_no_room(pair: tuple[Client, socket.socket], file: IO[bytes], head: bytes) -> None:
    client, theirs = pair
    sent = 0
    while not client.full:
        client.send(b"x" * 100_000)
        sent += 100_000
    client.send_file(head, file.fileno(), 0, len(FILE))
    found = b""
    while not client.flush():
        found += theirs.recv(1 << 20)
    found += received(theirs, sent + len(head) + len(FILE) - len(found))
    assert found == b"x" * sent + head + FILE


def test_a_head_without_room_is_kept_whole(pair: tuple[Client, socket.socket], file: IO[bytes]) -> None:
    client, theirs = pair
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += client.sock.send(b"x" * 100_000)
    client.send_file(HEAD, file.fileno(), 0, len(FILE))
    assert client.full
    received(theirs, sent)
    assert client.flush() and received(theirs, len(HEAD) + len(FILE)) == HEAD + FILE


def test_who_has_gone_is_told_by_the_head(pair: tuple[Client, socket.socket], file: IO[bytes]) -> None:
    client, _ = pair
    client.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ClientGone):
        client.send_file(HEAD, file.fileno(), 0, len(FILE))
