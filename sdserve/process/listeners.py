"""Listening sockets: adopted from whoever passed them, or bound by ourselves.

An adopted socket is verified before it is used: a stream socket, TCP or Unix, that listens. A datagram or a connected
one (Accept=yes) is refused by its name, since nothing else tells the operator which unit file is wrong.

A Unix socket's file is ours only while nobody else has bound the path: the file's inode is noted at bind and compared
before it is removed, so a successor's socket is never unlinked by its predecessor.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sdserve.errors import NO_ROOM, AddressInUse, ListenError, NoRoomToListen, refusal

# (host, port) for TCP, a path or "@abstract" for a Unix socket, a number for an inherited file descriptor.
Address = tuple[str, int] | str | int
METRICS, AGENT = "metrics", "agent"  # names of those that the observer answers on (ops/observer.py)
OBSERVED = (METRICS, AGENT)
KINDS = {socket.SOCK_DGRAM: "datagram", socket.SOCK_SEQPACKET: "sequential-packet", socket.SOCK_RAW: "raw"}


class Listener:
    """One listening socket, non-blocking and close-on-exec.

    `name` is what LISTEN_FDNAMES called it (sd_listen_fds(3)), "" otherwise; `activated` is true for systemd's sockets,
    which are never unlinked by us; `inode` is (device, inode) of the Unix socket's file that we bound, None otherwise;
    `passed_as` is N of the configured address fd://N, whatever number the descriptor has since an upgrade. `label` is
    what messages call it, and workers that give its connections to each other.

    Hooks use it as a socket, by gunicorn's habit: what it does not have itself is the socket's.
    """

    def __init__(
        self,
        sock: socket.socket,
        name: str = "",
        activated: bool = False,
        inode: tuple[int, int] | None = None,
        passed_as: int | None = None,
    ) -> None:
        self.sock = sock
        self.name = name
        self.activated = activated
        self.inode = inode
        self.passed_as = passed_as
        self.address = _address_of(sock)
        self.family = int(sock.family)
        self.label = show(self.address) if isinstance(self.address, str) else f"http://{show(self.address)}"

    if not TYPE_CHECKING:  # our own code says `sock`, and is checked

        def __getattr__(self, name: str) -> Any:
            if name == "sock":
                raise AttributeError(name)
            return getattr(self.sock, name)

    @property
    def cfg_addr(self) -> tuple[str, int] | str:
        """The address by gunicorn's name and in the form of bind(2): an abstract name begins with a NUL."""
        address = self.address
        return "\0" + address[1:] if isinstance(address, str) and address.startswith("@") else address

    @property
    def own(self) -> bool:
        """Whether we bound it: nobody else has it then, and what waits in its queue is reset when we have closed it."""
        return not self.activated and self.passed_as is None

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    def unlink(self) -> None:
        """Removes the Unix socket's file if it is still the one that we bound.

        On a disk that is read-only by now, or in a directory that is another's, it stays, and ends nothing: it is
        stale as soon as nobody listens, and whoever binds the path removes it, or says why that cannot be done.
        """
        if self.inode is not None and isinstance(self.address, str) and self.found():
            with suppress(OSError):
                os.unlink(self.address)

    def found(self) -> bool:
        """Whether who looks for its address finds it: not when the Unix socket's file that we bound was taken away."""
        if self.inode is None or not isinstance(self.address, str) or self.address.startswith("@"):
            return True
        try:
            there = os.lstat(self.address)
        except OSError:  # no such path any more, or none that we may look at
            return False
        return (there.st_dev, there.st_ino) == self.inode

    def __str__(self) -> str:
        return self.label


def adopt(fd: int, name: str, told: Mapping[str, Any]) -> Listener:
    """A listener on an inherited descriptor. Raises ListenError that names it when it is no listening stream.

    `told` is what the `describe` of another master said of it, {"activated": True} for systemd's; another version may
    say less or more.
    """
    what = f"inherited fd {fd}" + (f" ({name})" if name else "")
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise ListenError(f"{what} is not a socket: pass listening stream sockets only")
    except OSError as error:
        raise ListenError(f"{what} is not open: {error.strerror}") from error
    sock = socket.socket(fileno=fd)
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        trouble = f"is of address family {sock.family}, not TCP or Unix"
    elif sock.type != socket.SOCK_STREAM:
        trouble = f"is a {KINDS.get(sock.type, f'type {sock.type}')} socket, not a stream: use ListenStream="
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        trouble = "does not listen: is Accept=yes set? Use Accept=no"
    else:
        sock.set_inheritable(False)
        sock.setblocking(False)
        inode = tuple(told.get("inode") or ()) or None
        return Listener(sock, name, bool(told.get("activated")), inode, told.get("passed_as"))
    sock.detach()
    raise ListenError(f"{what} {trouble}")


def describe(listener: Listener) -> dict[str, Any]:
    """What a listener's descriptor alone does not tell the next master."""
    names = "name", "activated", "inode", "passed_as"
    return {name: getattr(listener, name) for name in names}


def bind(address: Address, *, backlog: int, reuse_port: bool = False, socket_mode: int = 0o600) -> Listener:
    """A new listener on `address`.

    `backlog` is listen(2)'s; `socket_mode` the permissions of a Unix socket's file. A Unix socket file that nobody
    listens on any more is removed, a live one is refused. Raises ListenError.
    """
    try:
        if isinstance(address, int):
            return adopt(address, "", {"passed_as": address})
        if isinstance(address, str):
            return _bind_unix(address, backlog, socket_mode)
        return _bind_tcp(address, backlog, reuse_port)
    except OSError as error:
        kind = AddressInUse if error.errno == errno.EADDRINUSE else ListenError
        if error.errno in NO_ROOM:
            kind = NoRoomToListen
        raise kind(f"cannot listen on {show(address)}: {_explain(error, address)}") from error


def show(address: Address) -> str:
    """An address in the form that `--bind` takes."""
    if isinstance(address, int):
        return f"fd://{address}"
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def match(addresses: Iterable[Address], current: Sequence[Listener]) -> list[tuple[Address, Listener | None]]:
    """Pairs addresses with the open listeners that serve them; a name such as `localhost` is compared resolved."""
    free = list(current)
    pairs: list[tuple[Address, Listener | None]] = []
    for address in addresses:
        found = next((each for each in free if _serves(each, address)), None)
        if found is not None:
            free.remove(found)
        pairs.append((address, found))
    return pairs


def _serves(listener: Listener, address: Address) -> bool:
    if isinstance(address, int):
        return listener.passed_as == address
    if isinstance(address, str) or isinstance(listener.address, str):
        return listener.address == address
    if address[1] not in (0, listener.address[1]):  # 0: whatever port it was given
        return False
    try:
        found = socket.getaddrinfo(_host(address[0]), address[1], type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        return False
    return any(entry[4][0] == listener.address[0] for entry in found)


def _bind_tcp(address: tuple[str, int], backlog: int, reuse_port: bool) -> Listener:
    host, port = address
    try:
        found = socket.getaddrinfo(_host(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {show(address)}: {error.strerror}") from error
    # A wildcard or a name may stand for IPv4 and IPv6: IPv4 first, as the address 0.0.0.0 of old configurations.
    family, kind, protocol, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return Listener(sock)


def _bind_unix(path: str, backlog: int, mode: int) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.startswith("@"):
            sock.bind("\0" + path[1:])
            inode = None
        else:
            remove_stale(path)
            # fchmod before bind sets the file's mode at its creation: no moment at which others could connect.
            os.fchmod(sock.fileno(), mode)
            before = os.umask(0)
            try:
                sock.bind(path)
            finally:
                os.umask(before)
            found = os.lstat(path)
            inode = (found.st_dev, found.st_ino)
        sock.listen(backlog)
    except (OSError, ListenError):
        sock.close()
        raise
    sock.setblocking(False)
    return Listener(sock, inode=inode)


def remove_stale(path: str) -> None:
    """Removes a Unix socket's file that nobody listens on. Raises AddressInUse at a live one, ListenError at others."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ListenError(f"cannot listen on unix:{path}: a file that is not a socket is in the way")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(path)
    if result == errno.ECONNREFUSED:
        os.unlink(path)
    elif result in (0, errno.EAGAIN, errno.EPROTOTYPE):  # the backlog is full; it is of another type, as /dev/log
        raise AddressInUse(f"cannot listen on unix:{path}: another process listens there")
    elif result != errno.ENOENT:
        raise ListenError(f"cannot listen on unix:{path}: {os.strerror(result)}")


def _host(name: str) -> bytes | str | None:
    """A host name for getaddrinfo(3); as bytes, where it can be, to spare the start the import of the IDNA codec."""
    return (name.encode() if name.isascii() else name) or None


def _address_of(sock: socket.socket) -> tuple[str, int] | str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return "@" + name[1:].decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)
    return str(name[0]), int(name[1])


def _explain(error: OSError, address: Address) -> str:
    if error.errno in NO_ROOM:
        return refusal(error)
    if error.errno == errno.ENOENT and isinstance(address, str):
        return f"there is no directory {os.path.dirname(address)}"
    if error.errno == errno.EACCES and isinstance(address, str):
        return f"this user may not make files in {os.path.dirname(address) or '.'}: permission denied"
    return {
        errno.EADDRINUSE: "the address is in use by another process",
        errno.EACCES: "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE, or let systemd open the socket)",
        errno.EADDRNOTAVAIL: "this machine does not have the address",
        # of addresses, only a link-local one without its interface
        errno.EINVAL: "a link-local address needs its interface, as in [fe80::1%eth0]:8000",
    }.get(error.errno or 0) or str(error.strerror or error)


def pass_on(fds: Sequence[int], extra: Sequence[int] = ()) -> list[int]:
    """Moves `fds` to 3, 4, … for the program that this process is about to exec (sd_listen_fds(3)).

    Returns where the `extra` descriptors went. Everything passed is inheritable afterwards. Copies are first made above
    the target range, since source and target overlap as a rule.
    """
    first = 3
    above = first + len(fds)
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in extra]
    for place, fd in enumerate(moved, start=first):
        os.dup2(fd, place, inheritable=True)
    for fd in kept:
        os.set_inheritable(fd, True)
    return kept
