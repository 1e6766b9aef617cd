"""Connections are shared between workers: many at once, none of them more than its fair share by much."""

import socket
import statistics
from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.load import ask
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually

CONNECTIONS, ROUNDS = 32, 9

Address = tuple[str, int]


def serve(start: Callable[..., Server], *args: str) -> Address:
    address = ("127.0.0.1", free_port())
    start("-b", "{}:{}".format(*address), "-w", "2", "--keep-alive", "60", *args, "web").wait_ready()
    pids: set[int] = set()

    def both() -> bool:
        pids.add(answer(address, "/pid").pid)
        return len(pids) == 2

    eventually(both, "both workers serve")
    return address


def shares(address: Address) -> list[int]:
    """Opens many connections at once; how many of them each worker has, most first."""
    socks: list[socket.socket] = []
    try:
        socks += [connector(address)() for _ in range(CONNECTIONS)]
        counts = Counter(ask(sock, "/pid").pid for sock in socks)
        for sock in socks:
            sock.shutdown(socket.SHUT_WR)
        for sock in socks:
            assert sock.recv(1) == b""  # its worker has closed it, and counts it no more
        return sorted(counts.values(), reverse=True)
    finally:
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("threads", ["1", "4"])
def test_two_workers_share_connections(start: Callable[..., Server], threads: str) -> None:
    address = serve(start, "--threads", threads)
    rounds = [shares(address) for _ in range(ROUNDS)]
    # Single rounds depend on when the kernel lets the workers run; most of them may not.
    assert statistics.median(counts[0] for counts in rounds) <= CONNECTIONS * 0.6, rounds


def test_a_worker_in_a_long_call_is_not_waited_for(start: Callable[..., Server]) -> None:
    address = serve(start)
    with connector(address)() as busy:
        busy.sendall(b"GET /sleep?3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        socks = [connector(address)() for _ in range(CONNECTIONS)]
        # The other worker takes what the one in the call would not; one connection may have been queued for it.
        assert len({ask(sock, "/pid").pid for sock in socks}) == 1
        for sock in socks:
            sock.close()
        assert busy.recv(65536).startswith(b"HTTP/1.1 200 ")
