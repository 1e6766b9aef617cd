"""Listening sockets: what is adopted, what is refused and by which name, who removes which file."""

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sdserve.errors import ListenError
from sdserve.process.listeners import Address, Listener, adopt, bind, describe, match, show


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """What is entered here is closed at the end."""
    with ExitStack() as stack:
        yield stack


def listening(stack: ExitStack, family: int = socket.AF_INET, where: object = ("127.0.0.1", 0)) -> socket.socket:
    sock = stack.enter_context(socket.socket(family))
    sock.bind(where)  # type: ignore[arg-type]
    sock.listen()
    return sock


def bound(stack: ExitStack, *args: object, **options: object) -> Listener:
    listener = bind(*args, **{"backlog": 8, **options})  # type: ignore[arg-type]
    stack.callback(listener.close)
    return listener


class TestAdopt:
    def test_a_listening_stream(self, opened: ExitStack) -> None:
        sock = listening(opened)
        address = sock.getsockname()
        os.set_inheritable(sock.fileno(), True)
        listener = adopt(sock.detach(), "http", {"activated": True})
        opened.callback(listener.close)
        assert (listener.address, listener.name, listener.activated) == (address, "http", True)
        assert not listener.sock.getblocking()
        assert not os.get_inheritable(listener.fileno())

    def test_a_datagram_socket_is_refused(self, opened: ExitStack) -> None:
        sock = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with pytest.raises(ListenError, match=rf"fd {sock.fileno()} \(dns\) is a datagram socket.*ListenStream="):
            adopt(sock.fileno(), "dns", {"activated": True})
        sock.getsockname()  # it was not closed behind its owner's back

    def test_a_sequential_packet_socket_is_refused(self, opened: ExitStack) -> None:
        sock = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        with pytest.raises(ListenError, match="is a sequential-packet socket"):
            adopt(sock.fileno(), "", {"activated": True})

    def test_a_connected_socket_is_refused(self, opened: ExitStack) -> None:
        listener = listening(opened)
        client = opened.enter_context(socket.create_connection(listener.getsockname()))
        server = opened.enter_context(listener.accept()[0])
        for sock in (client, server):
            with pytest.raises(ListenError, match=r"\(web\) does not listen: is Accept=yes set"):
                adopt(sock.fileno(), "web", {"activated": True})

    def test_another_family_is_refused(self, opened: ExitStack) -> None:
        sock = opened.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
        with pytest.raises(ListenError, match="address family"):
            adopt(sock.fileno(), "", {"activated": True})

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        with open(tmp_path / "file", "w") as file, pytest.raises(ListenError, match=r"\(log\) is not a socket"):
            adopt(file.fileno(), "log", {"activated": True})

    def test_a_closed_descriptor_is_refused(self) -> None:
        read, write = os.pipe()
        os.close(read)
        os.close(write)
        high = 100_000  # beyond what this process may open
        with pytest.raises(ListenError, match=rf"inherited fd {high} \(gone\) is not open"):
            adopt(high, "gone", {"activated": True})


class TestBindTcp:
    def test_ipv4(self, opened: ExitStack) -> None:
        listener = bound(opened, ("127.0.0.1", 0))
        assert isinstance(listener.address, tuple)
        host, port = listener.address
        assert (host, str(listener)) == ("127.0.0.1", f"http://127.0.0.1:{port}")
        opened.enter_context(socket.create_connection((str(host), int(port))))

    def test_ipv6(self, opened: ExitStack) -> None:
        listener = bound(opened, ("::1", 0))
        assert str(listener) == f"http://[::1]:{listener.address[1]}"
        opened.enter_context(socket.create_connection(("::1", int(listener.address[1]))))

    def test_ipv6_leaves_ipv4_alone(self, opened: ExitStack) -> None:
        six = bound(opened, ("::", 0))
        four = bound(opened, ("0.0.0.0", six.address[1]))
        assert four.address[1] == six.address[1]

    def test_a_wildcard_is_ipv4(self, opened: ExitStack) -> None:
        assert bound(opened, ("", 0)).address[0] == "0.0.0.0"

    def test_an_address_in_use(self, opened: ExitStack) -> None:
        port = bound(opened, ("127.0.0.1", 0)).address[1]
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}: the address is in use by another process"):
            bind(("127.0.0.1", int(port)), backlog=8)

    def test_several_with_reuse_port(self, opened: ExitStack) -> None:
        port = bound(opened, ("127.0.0.1", 0), reuse_port=True).address[1]
        assert bound(opened, ("127.0.0.1", port), reuse_port=True).address[1] == port

    def test_an_address_of_another_machine(self) -> None:
        with pytest.raises(ListenError, match=r"192\.0\.2\.1:80: this machine does not have the address"):
            bind(("192.0.2.1", 80), backlog=8)

    def test_a_name_that_is_none(self) -> None:
        with pytest.raises(ListenError, match="a link-local address needs its interface"):
            bind(("fe80::1", 0), backlog=8)
        with pytest.raises(ListenError, match=r"cannot listen on host\.invalid:80: "):
            bind(("host.invalid", 80), backlog=8)

    def test_a_descriptor(self, opened: ExitStack) -> None:
        listener = bound(opened, listening(opened).detach())
        assert not listener.activated


class TestBindUnix:
    def test_only_the_owner_may_connect(self, short_path: Path, opened: ExitStack) -> None:
        listener = bound(opened, str(short_path / "s"))
        assert stat.S_IMODE((short_path / "s").stat().st_mode) == 0o600
        assert (str(listener), listener.address) == (f"unix:{short_path}/s", str(short_path / "s"))

    def test_the_mode_is_the_configured_one_whatever_the_umask(self, short_path: Path, opened: ExitStack) -> None:
        before = os.umask(0o077)
        try:
            bound(opened, str(short_path / "s"), socket_mode=0o666)
            assert os.umask(0o077) == 0o077
        finally:
            os.umask(before)
        assert stat.S_IMODE((short_path / "s").stat().st_mode) == 0o666

    def test_a_stale_socket_is_replaced(self, short_path: Path, opened: ExitStack) -> None:
        bind(str(short_path / "s"), backlog=8).close()
        bound(opened, str(short_path / "s"))
        opened.enter_context(socket.socket(socket.AF_UNIX)).connect(str(short_path / "s"))

    def test_a_live_socket_is_refused_and_stays(self, short_path: Path, opened: ExitStack) -> None:
        bound(opened, str(short_path / "s"))
        with pytest.raises(ListenError, match="another process listens there"):
            bind(str(short_path / "s"), backlog=8)
        opened.enter_context(socket.socket(socket.AF_UNIX)).connect(str(short_path / "s"))

    def test_a_live_socket_with_a_full_backlog_is_refused(self, short_path: Path, opened: ExitStack) -> None:
        bound(opened, str(short_path / "s"), backlog=0)
        while True:
            client = opened.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(short_path / "s")):
                break
        with pytest.raises(ListenError, match="another process listens there"):
            bind(str(short_path / "s"), backlog=8)

    def test_a_file_in_the_way_is_refused_and_stays(self, tmp_path: Path) -> None:
        (tmp_path / "s").write_text("precious")
        with pytest.raises(ListenError, match="a file that is not a socket is in the way"):
            bind(str(tmp_path / "s"), backlog=8)
        assert (tmp_path / "s").read_text() == "precious"

    def test_a_directory_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(ListenError, match=rf"there is no directory {tmp_path}/no$"):
            bind(str(tmp_path / "no" / "s"), backlog=8)

    def test_a_path_that_is_too_long(self, tmp_path: Path) -> None:
        with pytest.raises(ListenError, match="too long"):
            bind(str(tmp_path / ("s" * 108)), backlog=8)

    def test_an_abstract_socket(self, opened: ExitStack) -> None:
        name = f"@sdserve-test-{os.getpid()}"
        listener = bound(opened, name)
        assert listener.address == name
        opened.enter_context(socket.socket(socket.AF_UNIX)).connect("\0" + name[1:])
        listener.unlink()  # there is nothing to remove

    def test_its_own_file_is_removed(self, short_path: Path, opened: ExitStack) -> None:
        listener = bound(opened, str(short_path / "s"))
        listener.unlink()
        listener.unlink()
        assert not (short_path / "s").exists()

    def test_the_file_of_a_successor_is_not_removed(self, short_path: Path, opened: ExitStack) -> None:
        listener = bound(opened, str(short_path / "s"))
        (short_path / "s").unlink()
        bound(opened, str(short_path / "s"))
        listener.unlink()
        assert (short_path / "s").exists()

    def test_the_file_of_an_adopted_socket_is_not_removed_unless_its_inode_came_along(
        self, short_path: Path, opened: ExitStack
    ) -> None:
        first = bound(opened, str(short_path / "s"))
        opened.callback((plain := adopt(os.dup(first.fileno()), "", {})).close)
        plain.unlink()
        assert (short_path / "s").exists()
        opened.callback((heir := adopt(os.dup(first.fileno()), "", {"inode": first.inode})).close)
        heir.unlink()
        assert not (short_path / "s").exists()


def test_an_address_is_shown_as_it_is_configured() -> None:
    addresses: list[Address] = [("127.0.0.1", 80), ("::1", 80), "/run/s", "@s", 3]
    assert list(map(show, addresses)) == ["127.0.0.1:80", "[::1]:80", "unix:/run/s", "unix:@s", "fd://3"]


def test_open_listeners_are_found_by_their_address(short_path: Path, opened: ExitStack) -> None:
    tcp = bound(opened, ("127.0.0.1", 0))
    unix = bound(opened, str(short_path / "s"))
    port = int(tcp.address[1])
    passed = bound(opened, listening(opened).detach())
    number = passed.fileno()
    # 127.1 is a name that every machine resolves to 127.0.0.1, with or without an /etc/hosts.
    wanted: list[Address] = [
        ("127.1", port),
        str(short_path / "s"),
        number,
        ("127.0.0.1", port ^ 1),
        "/other",
        tcp.fileno(),
    ]
    found = [listener for _, listener in match(wanted, [unix, tcp, passed])]
    assert found == [tcp, unix, passed, None, None, None]


def test_another_master_knows_what_the_descriptor_does_not_tell(short_path: Path, opened: ExitStack) -> None:
    """Whose it is, its file, and which fd://N of the configuration it was, whatever its number is now."""
    unix = bound(opened, str(short_path / "s"))
    passed = bound(opened, listening(opened).detach())
    unix.name = passed.name = "web"
    for listener in (unix, passed):
        heir = adopt(os.dup(listener.fileno()), listener.name, describe(listener))
        opened.callback(heir.close)
        assert describe(heir) == describe(listener)
        assert heir.name == "web"
    assert match([passed.fileno()], [heir]) == [(passed.fileno(), heir)]


PASS_ON = """
import fcntl, os, socket, sys
from sdserve.process.listeners import pass_on

def place(fd, number):
    os.dup2(fd, number)
    return number

numbers = [int(text) for text in sys.argv[1].split(",")]
extra = [int(text) for text in sys.argv[2].split(",") if text]
for number in numbers + extra:
    read, write = os.pipe()
    os.write(write, str(number).encode())
    high = fcntl.fcntl(read, fcntl.F_DUPFD, 200 + number)
    os.close(read)
    os.close(write)
for number in numbers + extra:
    os.dup2(200 + number, number, inheritable=False)
kept = pass_on(numbers, extra)
assert [os.read(3 + index, 9) for index in range(len(numbers))] == [str(number).encode() for number in numbers]
assert [os.read(fd, 9) for fd in kept] == [str(number).encode() for number in extra]
assert all(os.get_inheritable(fd) for fd in [*range(3, 3 + len(numbers)), *kept])
assert not set(kept) & set(range(3, 3 + len(numbers)))
os.write(1, b"passed")
"""


@pytest.mark.parametrize(
    ("fds", "extra"),
    [([3, 4], [5]), ([4, 3], [5]), ([5, 4, 3], [6]), ([9, 3, 8], [4, 5]), ([7], [3]), ([3], []), ([20, 21], [22])],
)
def test_descriptors_are_passed_on_at_3_and_up_whatever_they_overlap(fds: list[int], extra: list[int]) -> None:
    """In a process of its own, which may do with its descriptors what it likes."""
    read, write = os.pipe()
    argv = [sys.executable, "-c", PASS_ON, ",".join(map(str, fds)), ",".join(map(str, extra))]
    pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
    os.close(write)
    with os.fdopen(read, "rb") as said:
        assert said.read() == b"passed"
    assert os.waitpid(pid, 0)[1] == 0
