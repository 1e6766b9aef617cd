"""The adoption queue: connections move whole, once, and nothing else comes out of it."""

import json
import os
import random
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from sdserve.process.adoption import CARRIED, DENSE, SPREAD, AdoptionQueue, HandedConnection, is_client
from tests.support.children import in_a_child
from tests.support.processes import own_descriptors


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def queue() -> Iterator[AdoptionQueue]:
    queue = AdoptionQueue.new()
    yield queue
    queue.send_end.close()
    queue.receive_end.close()


def connection(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """(the client's end, the server's end) of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        return client, stack.enter_context(listener.accept()[0])


def taken(queue: AdoptionQueue, stack: ExitStack) -> list[HandedConnection]:
    found = queue.take() or []
    for each in found:
        stack.callback(each.sock.close)
    return found


def test_a_connection_lives_on_in_another_hand(queue: AdoptionQueue, opened: ExitStack) -> None:
    client, server = connection(opened)
    told = HandedConnection(server, "http://127.0.0.1:80", "192.0.2.7", "99", data=b"GET \xff\x00", head=1.5, body=2.5)
    assert queue.offer([told]) == ([told], False)
    server.close()
    [found] = taken(queue, opened)
    assert found.replace(sock=server) == told
    assert not found.new
    assert not found.sock.getblocking()
    assert not os.get_inheritable(found.sock.fileno())
    found.sock.send(b"answer")
    assert client.recv(10) == b"answer"
    assert taken(queue, opened) == []


def given(queue: AdoptionQueue, connections: list[HandedConnection], most: int = SPREAD) -> int:
    """How many went, from the first on; the others may follow if there were any."""
    went, again = queue.offer(connections, most)
    assert all(a is b for a, b in zip(went, connections, strict=False))
    assert again is (len(went) < len(connections))
    return len(went)


def drained(queue: AdoptionQueue) -> list[int]:
    """How many connections each message in the queue had; they are closed."""
    sizes = []
    while found := queue.take():
        sizes.append(len(found))
        for each in found:
            each.sock.close()
    return sizes


def test_what_has_the_number_of_a_closed_end_is_given_nothing_and_keeps_what_it_has(
    queue: AdoptionQueue, opened: ExitStack
) -> None:
    """The application has closed both ends, and opened sockets of its own."""
    _, server = connection(opened)
    ours, theirs = map(opened.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    for end in (queue.send_end, queue.receive_end):
        os.dup2(ours.fileno(), end.fileno())
    theirs.send(b"theirs")
    assert queue.offer([HandedConnection(server, "unix:a")]) == ([], False)
    with pytest.raises(OSError, match="Bad file descriptor"):
        queue.take()
    assert ours.recv(100) == b"theirs"
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)


def test_batches_are_spread_over_the_takers(queue: AdoptionQueue, opened: ExitStack) -> None:
    _, server = connection(opened)
    assert given(queue, [HandedConnection(server, "x")] * (2 * SPREAD + 1)) == 2 * SPREAD + 1
    assert drained(queue) == [SPREAD, SPREAD, 1]


def test_each_connection_keeps_what_is_said_of_it_alone(queue: AdoptionQueue, opened: ExitStack) -> None:
    """Equal ones share an entry of the message; the order stays."""
    told = [
        HandedConnection(connection(opened)[1], listener, peer, port, data)
        for listener, peer, port, data in [
            *[("a", "", "", b"")] * 3,
            *[("b", "192.0.2.1", "1", b"")] * 2,
            *[("b", "192.0.2.1", "2", b"")] * 2,
            *[("a", "", "", b"GET")] * 2,
            ("a", "", "", b""),
        ]
    ]
    assert given(queue, told) == len(told)
    found = taken(queue, opened)
    assert [each.replace(sock=one.sock) for each, one in zip(found, told, strict=True)] == told
    assert [each.sock.getpeername() for each in found] == [each.sock.getpeername() for each in told]


def test_messages_are_as_long_as_the_kernel_takes(queue: AdoptionQueue, opened: ExitStack) -> None:
    _, server = connection(opened)
    data = [os.urandom(size) for size in (CARRIED, 10, 10, CARRIED, CARRIED, 30_000, 0)]
    assert given(queue, [HandedConnection(server, "x", data=each) for each in data]) == len(data)
    found = [taken(queue, opened) for _ in range(3)]
    assert [each.data for batch in found for each in batch] == data
    assert all(found)


def test_a_small_buffer_gets_shorter_messages(queue: AdoptionQueue, opened: ExitStack) -> None:
    """What fits into no message of this machine stays; all others go."""
    _, server = connection(opened)
    queue.send_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    told = [HandedConnection(server, "x", data=os.urandom(size)) for size in (9000, 9000, CARRIED, 10)]
    went = []
    while True:
        now, again = queue.offer(told)
        went += now
        told = [each for each in told if each not in now]
        if not again:
            break
        drained(queue)
    assert [len(each.data) for each in went] == [9000, 9000, 10]
    assert [len(each.data) for each in told] == [CARRIED]


def test_a_full_queue_leaves_the_rest_with_their_sender(queue: AdoptionQueue, opened: ExitStack) -> None:
    _, server = connection(opened)
    queue.send_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    many = [HandedConnection(server, "x")] * 3000
    sent = given(queue, many)
    assert 0 < sent < len(many)
    assert sum(drained(queue)) == sent
    assert given(queue, many[sent:]) > 0


def test_tens_of_thousands_wait_for_a_restart(queue: AdoptionQueue, opened: ExitStack) -> None:
    """With the send buffer that a kernel as installed allows, where no worker takes any out meanwhile."""
    _, server = connection(opened)
    queue.send_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212_992)
    for _ in range(16):  # workers
        assert given(queue, [HandedConnection(server, "http://127.0.0.1:8000")] * 2000, DENSE) == 2000
    assert sum(drained(queue)) == 32_000


def test_too_many_on_their_way_may_follow_later(queue: AdoptionQueue, opened: ExitStack) -> None:
    """ETOOMANYREFS: an unprivileged user may have as many descriptors in messages as RLIMIT_NOFILE."""
    _, server = connection(opened)
    many = [HandedConnection(server, "x")] * 500

    def as_an_ordinary_user() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        if os.geteuid() == 0:
            os.setresuid(54321, 54321, 54321)
        sent = given(queue, many)
        assert 128 <= sent < len(many)
        assert sum(drained(queue)) == sent
        assert given(queue, many[sent:]) > 0

    assert in_a_child(as_an_ordinary_user) == 0


def leave_room(count: int) -> None:
    """From now on this process can have `count` descriptors more."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    held = []
    with suppress(OSError):
        while True:
            held.append(os.dup(0))
    for fd in held[-count:]:
        os.close(fd)


def test_who_has_no_room_leaves_them_to_others(queue: AdoptionQueue, opened: ExitStack) -> None:
    """A receiver that is out of descriptors would get some of them, and the kernel would close the others."""
    ends = [connection(opened) for _ in range(8)]
    assert given(queue, [HandedConnection(server, "x") for _, server in ends]) == 8

    def without_room() -> None:
        leave_room(5)
        for _ in range(3):
            with pytest.raises(OSError, match="Too many open files"):
                queue.take()

    assert in_a_child(without_room) == 0
    assert len(taken(queue, opened)) == 8


def test_some_are_better_than_none(queue: AdoptionQueue, opened: ExitStack) -> None:
    """In the end, when there is no room for all of them anywhere."""
    ends = [connection(opened) for _ in range(8)]

    def without_room() -> None:
        leave_room(5)
        assert len(queue.take(all_or_none=False) or ()) == 5

    assert given(queue, [HandedConnection(server, "x") for _, server in ends]) == 8
    assert in_a_child(without_room) == 0
    assert queue.take() is None


@pytest.mark.parametrize("broken", ["receive end", "connection"])
def test_what_nobody_can_take_stays(queue: AdoptionQueue, opened: ExitStack, broken: str) -> None:
    _, server = connection(opened)
    if broken == "receive end":
        queue.receive_end.close()
    else:
        server.close()
    assert queue.offer([HandedConnection(server, "x")]) == ([], False)


NONSENSE = [
    *(b"[" * 5000, b"no json", b"{}", b"[]", b'["x"]', b"[{}, {}]", b'[{"listener": 1}]', b"\xff"),
    *(b'[{"data": ["x"]}]', b'[{"data": "?"}]', '[{"data": "é"}]'.encode(), b'[{"head": -1}]', b'[{"head": "1"}]'),
    *(b'[{"body": NaN}]', b'[{"body": 1e999}]', b'[{"head": true, "body": null}]'),
    *(b'[{"count": 0}]', b'[{"count": 2}]', b'[{"count": "1"}]', b'[{"count": 1e9}]', b'[{"count": 99999999999}]'),
    *(b'[{"since": 1%s}]' % (b"0" * 400), b'[{"head": 1%s}]' % (b"0" * 5000)),  # no float, and too long for an int
]


@pytest.mark.parametrize("message", NONSENSE)
def test_nonsense_is_closed(queue: AdoptionQueue, opened: ExitStack, message: bytes) -> None:
    client, server = connection(opened)
    socket.send_fds(queue.send_end, [message], [server.fileno()])
    server.close()
    assert queue.take() == []
    client.settimeout(15)
    assert client.recv(1) == b""


def test_a_message_with_nobody_in_it_is_not_the_last_one(queue: AdoptionQueue, opened: ExitStack) -> None:
    _, server = connection(opened)
    socket.send_fds(queue.send_end, [b"no json"], [server.fileno()])
    assert given(queue, [HandedConnection(server, "x")]) == 1
    assert queue.take() == []
    assert len(taken(queue, opened)) == 1
    assert queue.take() is None
    queue.send_end.close()
    assert queue.take() is None


def test_only_clients_come_out(queue: AdoptionQueue, opened: ExitStack) -> None:
    _, server = connection(opened)
    listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    datagram = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    read, write = os.pipe()
    opened.callback(os.close, read)
    opened.callback(os.close, write)
    before = own_descriptors()
    fds = [listener.fileno(), read, server.fileno(), datagram.fileno()]
    socket.send_fds(queue.send_end, [b"[{},{},{},{}]"], fds)
    [found] = taken(queue, opened)
    assert found.sock.getsockname() == server.getsockname()
    found.sock.close()
    assert own_descriptors() == before


def test_an_inherited_queue_is_the_same_queue(queue: AdoptionQueue, opened: ExitStack) -> None:
    _, server = connection(opened)
    send, receive = (os.dup(fd) for fd in queue.fds())
    os.set_inheritable(send, True)
    heir = AdoptionQueue.inherited(send, receive)
    assert not any(map(os.get_inheritable, heir.fds()))
    queue.offer([HandedConnection(server, "x")])
    assert len(taken(heir, opened)) == 1
    heir.send_end.close()
    heir.receive_end.close()


def test_who_is_a_client(opened: ExitStack) -> None:
    client, server = connection(opened)
    one, other = socket.socketpair()
    opened.enter_context(other)
    assert all(map(is_client, (client, server, opened.enter_context(one))))
    assert not is_client(opened.enter_context(socket.socket()))


def hostile(chance: random.Random, fds: list[int]) -> tuple[bytes, list[int]]:
    """A message that no worker would send, of descriptors that may be anything."""
    some = chance.sample(fds, chance.randint(0, len(fds)))
    good = json.dumps([{"listener": "http://127.0.0.1:80"}] * len(some)).encode()
    messages = [
        good[: chance.randint(1, len(good))],
        bytes(chance.randbytes(chance.randint(1, 60000))),
        json.dumps([{"listener": "x"}] * (len(some) + chance.choice((-1, 1)))).encode(),
        json.dumps([{"listener": chance.choice((None, 7, [], {}, "\ud800"))}] * len(some)).encode(),
        json.dumps([{"data": "\u0fff", "peer": "p" * 500, "port": "-1"}] * len(some)).encode(),
        json.dumps({"listener": "x"}).encode(),
        b"[" * 60000,
    ]
    return chance.choice(messages), some


def test_a_thousand_cycles_leave_no_descriptor(queue: AdoptionQueue, opened: ExitStack) -> None:
    """Given, taken and closed, with good metadata and with hostile, in any order."""
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    _, server = connection(opened)
    read, write = os.pipe()
    for fd in (read, write):
        opened.callback(os.close, fd)
    listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    fds = [server.fileno(), read, write, listener.fileno(), server.fileno()]
    before = own_descriptors()
    came = 0
    for _ in range(1000):
        if chance.random() < 0.5:
            assert given(queue, [HandedConnection(server, "x", data=chance.randbytes(9))] * 5) == 5
        message, some = hostile(chance, fds)
        socket.send_fds(queue.send_end, [message], some)
        for _ in range(2):
            for found in queue.take() or ():
                came += 1
                found.sock.close()
        assert queue.take() is None
    assert came > 1000, f"seed {seed}"
    assert own_descriptors() == before, f"seed {seed}"
