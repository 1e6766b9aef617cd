"""Where connections come in: accepted in turn, adopted, or behind a proxy that says who its client is."""

import errno
import logging
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from sdserve.config import load
from sdserve.gateway.forwarded import TRUSTED
from sdserve.http.connection import Connection
from sdserve.http.request import RequestReader
from sdserve.http.response import HeadWriter
from sdserve.process.accept_balance import AcceptBalance
from sdserve.process.adoption import AdoptionQueue, HandedConnection
from sdserve.process.listeners import Listener, bind
from sdserve.process.scoreboard import Scoreboard
from sdserve.workers.base import NO_CELL
from sdserve.workers.http import handoff
from sdserve.workers.http.acceptor import Acceptor
from sdserve.workers.http.client import EPOLLIN, RESET, Client, Phase
from sdserve.workers.http.clients import Clients
from sdserve.workers.http.retirement import Retirement
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store
from sdserve.workers.options import Options


class Worker:
    """What a acceptor wants of a worker: what it listens on, and the queue."""

    def __init__(self, sockets: list[Listener], adoption: AdoptionQueue) -> None:
        self.sockets = sockets
        self.adoption = adoption
        self.log = logging.getLogger("test")
        self.cell = Scoreboard(1).take()
        self.alive = True
        self.counters = NO_CELL


class Guests(Clients[Client]):
    """The clients of a worker that answers nobody. Who is among the `lost`, by port, has gone when it is welcomed."""

    lost: ClassVar[set[str]] = set()
    store = Store(Quota(0), print, 5)

    def make(self, sock: socket.SocketType, listener: Listener, peer: tuple[str, str]) -> Client:
        if peer[1] in self.lost:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        limits = self._options.limits
        return Client(sock, Connection(RequestReader(limits), limits), {}, peer, self.store)


class House:
    """An acceptor with a TCP and a Unix listener."""

    def __init__(self, stack: ExitStack, path: str, **values: Any) -> None:
        self._stack = stack
        self.tcp = bind(("127.0.0.1", 0), backlog=8)
        self.unix = bind(path, backlog=8)
        self.queue = AdoptionQueue.new()
        self.epoll = select.epoll()
        for each in (self.tcp, self.unix, self.epoll, self.queue.send_end, self.queue.receive_end):
            stack.callback(each.close)
        worker = cast(Any, Worker([self.tcp, self.unix], self.queue))
        wanted = Options.of(load(["app"], {})).replace(**values)
        self.guests = Guests(self.epoll, wanted, cast(Any, worker.log), lambda now: None, lambda: None, NO_CELL)
        self.acceptor = Acceptor(worker, wanted, self.epoll, self.guests)
        stack.callback(Guests.lost.clear)

    def knock(self, listener: Listener) -> socket.socket:
        family = socket.AF_UNIX if isinstance(listener.address, str) else socket.AF_INET
        peer = self._stack.enter_context(socket.socket(family))
        peer.settimeout(10)
        peer.connect(listener.address)
        return peer

    def let_in(self, listener: Listener) -> Client:
        client = self.acceptor.accept(listener)
        assert client is not None
        self._stack.callback(self.guests.close, client)
        return client


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    with ExitStack() as stack:
        yield lambda **values: House(stack, str(tmp_path / "s"), **values)


def test_a_connection_knows_its_peer_and_where_it_came_in(house: Callable[..., House]) -> None:
    one = house()
    peer = one.knock(one.tcp)
    client = one.let_in(one.tcp)
    assert (client.peer, client.listener, client.phase) == ("127.0.0.1", str(one.tcp), Phase.HEAD)
    with pytest.raises(BlockingIOError):
        client.sock.recv(1)
    peer.sendall(b"x")
    assert select.select([client], [], [], 10)[0] and client.sock.recv(9) == b"x"

    one.knock(one.unix)
    assert (one.let_in(one.unix).peer, one.acceptor.accept(one.unix)) == ("", None)


def test_a_connection_that_is_lost_at_the_door_is_no_reason_to_close_it(house: Callable[..., House]) -> None:
    one = house()
    gone, here = one.knock(one.tcp), one.knock(one.tcp)
    one.guests.lost.add(str(gone.getsockname()[1]))
    assert one.let_in(one.tcp).sock.getpeername() == here.getsockname()
    assert gone.recv(1) == b"" and one.acceptor.accept(one.tcp) is None


def test_room_is_made_for_who_waits_and_for_nobody_else(house: Callable[..., House]) -> None:
    """A full worker that leaves looks into its listeners, too, and gives its idle connections away afterwards."""
    one = house(connections=2)
    peers = [one.knock(one.tcp), one.knock(one.tcp)]
    clients = [one.let_in(one.tcp), one.let_in(one.tcp)]
    for client in clients:
        client.began = client.last = monotonic() - 60
    one.acceptor._told_at = monotonic()  # to the log this worker is nobody
    assert one.acceptor.accept(one.tcp) is None
    assert [client.phase for client in clients] == [Phase.HEAD, Phase.HEAD]
    peers.append(one.knock(one.tcp))
    assert one.let_in(one.tcp).sock.getpeername() == peers[2].getsockname()
    assert Phase.CLOSED in [client.phase for client in clients]


def test_a_closed_door_hears_nothing(house: Callable[..., House]) -> None:
    one = house()
    one.knock(one.tcp)
    assert one.epoll.poll(0) == []
    one.acceptor.set_open(True)
    one.acceptor.set_open(True)
    assert one.epoll.poll(10) == [(one.tcp.fileno(), EPOLLIN)]
    one.acceptor.to_the_end_of_the_line(one.tcp.fileno())
    assert one.epoll.poll(10) == [(one.tcp.fileno(), EPOLLIN)]
    one.acceptor.set_open(False)
    one.acceptor.to_the_end_of_the_line(one.tcp.fileno())
    assert one.epoll.poll(0) == []


class Short:
    """An epoll without memory for the calls that `fails` numbers."""

    def __init__(self, epoll: select.epoll, fails: set[int]) -> None:
        self._epoll = epoll
        self._fails = fails
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        self._calls += 1
        if self._calls in self._fails:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return getattr(self._epoll, name)


@pytest.mark.parametrize("fails", [{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {2, 3}, {3, 4, 5}])
def test_a_door_that_could_not_be_moved_is_moved_when_that_is_said_again(
    house: Callable[..., House], fails: set[int]
) -> None:
    """One call for each listener and the queue: opened, to the end of the line, closed."""
    one = house()
    one.knock(one.tcp)
    one.acceptor._epoll = cast(Any, Short(one.epoll, fails))

    def insist(move: Callable[[], None]) -> None:
        for _ in range(4):
            with suppress(OSError):
                move()

    insist(lambda: one.acceptor.set_open(True))
    assert one.epoll.poll(10) == [(one.tcp.fileno(), EPOLLIN)]
    with suppress(OSError):
        one.acceptor.to_the_end_of_the_line(one.tcp.fileno())
    insist(lambda: one.acceptor.set_open(True))
    assert one.epoll.poll(10) == [(one.tcp.fileno(), EPOLLIN)]
    insist(lambda: one.acceptor.set_open(False))
    assert one.epoll.poll(0) == []


def test_a_foundling_comes_in_where_it_came_in_first(house: Callable[..., House]) -> None:
    one = house()
    ends = []
    for listener in (one.unix, one.tcp):
        ends.append(one.knock(listener))
        client = one.let_in(listener)
        assert len(one.queue.offer([HandedConnection(client.sock, client.listener)])[0]) == 1
    adopted: list[Client] = []
    while len(adopted) < 2:
        adopted += one.acceptor.adopt() or ()
    for client, listener, end in zip(adopted, (one.unix, one.tcp), ends, strict=True):
        assert client.listener == str(listener) and not client.proxied
        client.sock.send(b"hello")
        assert end.recv(9) == b"hello"
        client.close()


def test_a_client_that_goes_on_the_way_takes_no_other_with_it(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = house()
    client = one.knock(one.tcp)
    first = one.let_in(one.tcp)
    one.knock(one.tcp)
    second = one.let_in(one.tcp)
    went, _ = one.queue.offer([HandedConnection(client.sock, client.listener) for client in (first, second)])
    assert len(went) == 2
    address, asked = handoff.peer_of, list[HandedConnection]()

    def peer_of(handed: HandedConnection) -> tuple[str, str]:
        asked.append(handed)
        if len(asked) == 1:  # it was there a moment ago, when the queue looked
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return address(handed)

    monkeypatch.setattr(handoff, "peer_of", peer_of)
    adopted: list[Client] = []
    while len(asked) < 2:
        adopted += one.acceptor.adopt() or ()
    assert [client.peer for client in adopted] == ["127.0.0.1"]
    first.sock.close()
    assert client.recv(1) == b""  # nobody holds it any more
    adopted[0].close()


def test_a_message_of_which_nobody_is_left_hides_none_behind_it(house: Callable[..., House]) -> None:
    """The last worker takes back what was left in the queue, to the last message."""
    one = house()
    gone, here = one.knock(one.tcp), one.knock(one.tcp)
    for client in (one.let_in(one.tcp), one.let_in(one.tcp)):
        assert one.acceptor.give_away([client], monotonic(), 1)[0] == [client]
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    gone.close()
    Retirement(cast(Any, None), one.guests, one.acceptor, HeadWriter("sdserve"))._take_back(monotonic())
    (kept,) = one.guests
    assert kept.sock.getpeername() == here.getsockname()
    assert one.acceptor.adopt() is None
    one.guests.close(kept)


def test_of_its_surplus_a_worker_gives_away_what_is_idle(house: Callable[..., House]) -> None:
    one = house(workers=2)
    board = Scoreboard(4)
    one.acceptor.balance = AcceptBalance(board.take(), 2)
    other = AcceptBalance(board.take(), 2)
    other.join()
    one.acceptor.start()
    peers = [one.knock(one.tcp) for _ in range(8)]
    clients = [one.let_in(one.tcp) for _ in peers]
    for peer, client in zip(peers[:5], clients, strict=False):
        peer.sendall(b"x")
        assert select.select([client], [], [], 10)[0]
    one.acceptor.set_open(False)  # it has just left a new connection to others
    one.acceptor.share()
    assert list(one.guests) == clients[:5]  # of four beyond its share, one has begun to ask
    other.hold(3)
    one.acceptor.share()
    assert len(one.guests) == 5
    assert one.acceptor.adopt() is not None  # one in each message
    assert len(one.guests) == 6


@pytest.mark.parametrize("take", ["_begin", "_take_back"])
def test_who_leaves_keeps_all_but_the_one_that_epoll_has_no_room_for(house: Callable[..., House], take: str) -> None:
    one = house()
    peers = [one.knock(one.tcp) for _ in range(3)]
    if take == "_take_back":
        for client in [one.let_in(one.tcp) for _ in peers]:
            assert one.acceptor.give_away([client], monotonic(), 1)[0] == [client]
    alone = SimpleNamespace(has_successors=lambda: False, hands_on=lambda: False, drain_by=None)
    retirement = Retirement(cast(Any, alone), one.guests, one.acceptor, HeadWriter("sdserve"))
    one.guests._epoll = cast(Any, Short(one.epoll, {2}))
    getattr(retirement, take)(monotonic())
    for peer in peers:
        peer.sendall(b"x")
    assert peers[1].recv(1) == b""
    assert {fd for fd, _ in one.epoll.poll(10)} == {client.fd for client in one.guests}
    assert len(one.guests) == 2


@pytest.mark.parametrize("cut", [1, 20, 45])
def test_a_trusted_proxy_says_who_its_client_is(house: Callable[..., House], cut: int) -> None:
    one = house(proxy_protocol="v1", proxy_allow_ips=("127.0.0.1",), forwarded_allow_ips=("192.0.2.7",))
    one.knock(one.tcp)
    client = one.let_in(one.tcp)
    assert client.phase is Phase.PREFACE and not client.standing & TRUSTED
    line = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nGET / HTTP/1.1\r\n"
    if not one.guests.read_preface(client, line[:cut]):
        assert one.guests.read_preface(client, line[cut:])
        rest = line[line.index(b"GET") :]
    else:
        rest = line[line.index(b"GET") : cut]
    assert (client.peer, client.port, client.conn.rest) == ("192.0.2.7", "4711", rest)
    phase: Phase = client.phase
    assert client.proxied and client.standing & TRUSTED and phase is Phase.HEAD


def test_who_is_no_proxy_needs_no_preface_and_nonsense_is_refused(house: Callable[..., House]) -> None:
    one = house(proxy_protocol="v1", proxy_allow_ips=("192.0.2.1",))
    one.knock(one.tcp)
    client = one.let_in(one.tcp)
    assert client.phase is Phase.HEAD
    assert not one.guests.read_preface(client, b"GET / HTTP/1.1\r\n\r\n")
    assert (len(one.guests), client.sock.fileno()) == (0, -1)
