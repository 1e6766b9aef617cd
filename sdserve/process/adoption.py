"""The adoption queue: client connections on their way from a worker that leaves to one that serves.

One AF_UNIX SOCK_SEQPACKET socketpair (unix(7)) for all masters and workers of a service. A retiring worker sends its
connections into it, many to a message, as descriptors (SCM_RIGHTS) with a JSON list that says of each what the
descriptor does not: where it came in, and what was received of a request that no application has seen. Any serving
worker, of whichever generation or master, takes a message whole. A message is delivered once or not at all, so no
connection is ever served twice; one that cannot be sent stays with its sender.

Only processes that inherited the pair, or got it from systemd's fd store, can reach it. What comes out is checked all
the same: a stream socket, connected, of the expected family, or it is closed.
"""

import binascii
import errno
import itertools
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from sdserve.descriptor import Meaning
from sdserve.immutable import Immutable
from sdserve.process import rights

SPREAD = 32  # connections in a message that serving workers take at once, at most
DENSE = rights.MOST  # and in one that waits for the next start
LONGEST = 131072  # bytes of a message; the kernel takes less than the send buffer (wmem_default(5): 212,992)
CARRIED = 65536  # bytes of a request that travel with its connection, at most
LARGEST = sys.float_info.max  # seconds that anybody can say

# Why connections stay with their sender for good: nobody has the other end, a security module forbids it, the
# application closed a descriptor, and that of this end may be another's by now.
UNSENDABLE = (errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ENOTCONN, errno.EPERM, errno.EACCES, errno.EBADF)


class HandedConnection(Immutable):
    """A connection to be adopted. `listener` is the address that it was accepted at (Listener's str).

    `peer` and `port` are set when they are not the socket's own but came with the PROXY protocol. `data` is what was
    received of a request, from its head on; `head` and `body` say for how many seconds these have been waited for,
    and `since` when a connection without a request had its last answer, or came (monotonic seconds, 0: not known).
    `new`: no worker has had it yet, and whatever its client sends first is still to be read.
    """

    sock: socket.SocketType
    listener: str
    peer: str = ""
    port: str = ""
    data: bytes = b""
    head: float = 0.0
    body: float = 0.0
    since: float = 0.0
    new: bool = False


class AdoptionQueue:
    """Both ends of the queue: `send_end` is for those who leave, `receive_end` for those who serve."""

    def __init__(self, send_end: socket.socket, receive_end: socket.socket) -> None:
        self.send_end = send_end
        self.receive_end = receive_end
        self._sends, self._receives = Meaning(send_end.fileno()), Meaning(receive_end.fileno())
        for end in (send_end, receive_end):
            end.setblocking(False)

    @classmethod
    def new(cls) -> "AdoptionQueue":
        send_end, receive_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        send_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)  # the kernel takes what wmem_max allows
        return cls(send_end, receive_end)

    @classmethod
    def inherited(cls, send_fd: int, receive_fd: int) -> "AdoptionQueue":
        """The queue on two inherited descriptors. Raises OSError when they are not sockets."""
        ends = []
        for fd in (send_fd, receive_fd):
            os.set_inheritable(fd, False)
            ends.append(socket.socket(fileno=fd))
        return cls(*ends)

    def fds(self) -> tuple[int, int]:
        return self.send_end.fileno(), self.receive_end.fileno()

    def offer(self, connections: Sequence[HandedConnection], most: int = SPREAD) -> tuple[list[HandedConnection], bool]:
        """Sends connections away, up to `most` in a message; the sender closes what went.

        Returns those that went, and whether others may go later: there was no room for them now.
        """
        went: list[HandedConnection] = []
        at, longest = 0, LONGEST
        while at < len(connections):
            batch, message = _message(connections[at : at + most], longest)
            if not batch:  # too much was received of its request
                at += 1
                continue
            try:
                self._sends.demand()
                socket.send_fds(self.send_end, [message], [each.sock.fileno() for each in batch])
            except OSError as error:
                if error.errno == errno.EMSGSIZE:  # the send buffer is smaller than LONGEST
                    longest = len(message) - 1
                    continue
                if error.errno in rights.NOT_NOW:
                    return went, True
                if error.errno in UNSENDABLE:
                    return went, False
                raise
            went += batch
            at += len(batch)
        return went, False

    def take(self, *, all_or_none: bool = True) -> list[HandedConnection] | None:
        """The connections of one message, None when there is none. What is not a client's connection is closed.

        Raises OSError when there is no room for so many descriptors: the message stays, for others or for later. Not
        `all_or_none`: what finds no room is closed. Raises OSError as well when the application has closed this end.
        """
        try:
            self._receives.demand()
            if all_or_none:
                expected = _parsed(self.receive_end.recv(LONGEST, socket.MSG_PEEK))
                rights.demand_room(self.receive_end.fileno(), len(expected or ()))
            message, fds, lost = rights.receive(self.receive_end, LONGEST)
        except BlockingIOError:
            return None
        if not message and not fds:  # the end: nobody can send any more
            return None
        told = _parsed(message)
        if told is not None and lost:  # another process took what was looked at, and this is a longer message
            told = told[: len(fds)]
        if told is None or len(told) != len(fds):
            for fd in fds:
                os.close(fd)
            return []
        return list(_checked([_socket(fd) for fd in fds], told))


def _message(connections: Sequence[HandedConnection], longest: int) -> tuple[Sequence[HandedConnection], bytes]:
    """As many of the first connections as one message holds, and the message."""
    import json  # few workers give connections away while a client waits for the start

    entries: list[str] = []
    size, taken = len("[]"), 0
    for said, alike in itertools.groupby(map(_told, connections)):
        count = len(list(alike))
        many = count > 1 and "data" not in said
        for entry in [json.dumps(said | {"count": count})] if many else [json.dumps(said)] * count:
            size += len(entry) + len(",")
            if size > longest:
                return connections[:taken], f"[{','.join(entries)}]".encode()
            entries.append(entry)
            taken += count if many else 1
    return connections[:taken], f"[{','.join(entries)}]".encode()


def _told(handed: HandedConnection) -> dict[str, str | float]:
    said: dict[str, str | float] = {"listener": handed.listener}
    if handed.peer:
        said |= {"peer": handed.peer, "port": handed.port}
    if handed.new:
        said["new"] = True
    if handed.data:
        said["data"] = binascii.b2a_base64(handed.data, newline=False).decode()
        said |= {"head": handed.head, "body": handed.body}
    else:
        said["since"] = handed.since
    return said


def _parsed(message: bytes) -> list[dict[str, Any]] | None:
    """What was said of each connection, in the order of the descriptors; None if that is nonsense."""
    import json

    try:
        entries = json.loads(message)
    except (ValueError, RecursionError):  # the latter: nested too deep
        return None
    if not isinstance(entries, list):
        return None
    told: list[dict[str, Any]] = []
    for each in entries:
        count = each.get("count", 1) if isinstance(each, dict) else None
        if not isinstance(count, int) or not 0 < count <= rights.MOST:
            return None
        told += [each] * count
    return told


def _socket(fd: int) -> socket.socket | None:
    """The socket of a descriptor; None, and the descriptor closed, if it is something else."""
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None


def _checked(socks: Iterable[socket.socket | None], told: Iterable[dict[str, Any]]) -> Iterable[HandedConnection]:
    for sock, said in zip(socks, told, strict=True):
        handed = _believed(sock, said) if sock is not None and is_client(sock) else None
        if handed is not None:
            handed.sock.setblocking(False)
            yield handed
        elif sock is not None:
            sock.close()


def _believed(sock: socket.socket, said: dict[str, Any]) -> HandedConnection | None:
    """A connection with what was said of it, None if that is nonsense."""
    words = [said.get(name, "") for name in ("listener", "peer", "port", "data")]
    times = [said.get(name, 0.0) for name in ("head", "body", "since")]
    if not all(isinstance(word, str) for word in words):
        return None
    if not all(isinstance(time, (int, float)) and 0 <= time <= LARGEST for time in times):  # NaN is no such thing
        return None
    listener, peer, port, encoded = words
    try:
        data = binascii.a2b_base64(encoded, strict_mode=True) if encoded else b""
    except ValueError:  # binascii.Error, and what is not ASCII
        return None
    head, body, since = map(float, times)
    return HandedConnection(sock, listener, peer, port, data, head, body, since, said.get("new") is True)


def is_client(sock: socket.socket) -> bool:
    """Whether `sock` is a stream connection of a client: TCP or Unix, connected, not listening."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or sock.type != socket.SOCK_STREAM:
        return False
    try:
        sock.getpeername()
    except OSError:  # not connected, or no longer
        return False
    return True
