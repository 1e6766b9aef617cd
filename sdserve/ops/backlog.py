"""How many connections wait in a listener to be accepted, as the kernel tells it.

For a TCP listener TCP_INFO has it (tcp(7); tcpi_unacked and tcpi_sacked of a listening socket). For a Unix socket only
sock_diag(7) does, by netlink and in the socket's own network namespace. In a sandbox without either the number is
unknown, which does not mean that nobody waits.
"""

import os
import socket
import struct
from contextlib import suppress

LISTEN = 10  # TCP_LISTEN
TCP_INFO_WAITING = 24  # bytes into struct tcp_info
SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
UDIAG_SHOW_RQLEN = 0x10
UNIX_DIAG_RQLEN = 4
NLMSG_REQUEST = 1
TIMEOUT = 0.02  # seconds for the kernel's answer, which comes at once

_NLMSG = struct.Struct("=IHHII")
_ASK = struct.Struct("=BBHIII8s")  # struct unix_diag_req
ANY_COOKIE = b"\xff" * 8
_TOLD = struct.Struct("=BBBBIII")  # struct unix_diag_msg
_ATTRIBUTE = struct.Struct("=HH")
_LENGTHS = struct.Struct("=II")


def waiting(sock: socket.socket) -> tuple[int, int] | None:
    """(how many connections wait, how many may), or None if the kernel does not tell this process."""
    if sock.family != socket.AF_UNIX:
        return _of_tcp(sock)
    with suppress(OSError, struct.error):
        return _of_unix(os.fstat(sock.fileno()).st_ino)
    return None


def _of_tcp(sock: socket.socket) -> tuple[int, int] | None:
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return None
    if len(info) < TCP_INFO_WAITING + _LENGTHS.size or info[0] != LISTEN:
        return None
    now, most = _LENGTHS.unpack_from(info, TCP_INFO_WAITING)
    return now, most


def _of_unix(inode: int) -> tuple[int, int] | None:
    """Raises OSError where there is no netlink, or no such socket in this network namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, SOCK_DIAG) as netlink:
        netlink.settimeout(TIMEOUT)
        ask = _ASK.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, UDIAG_SHOW_RQLEN, ANY_COOKIE)
        head = _NLMSG.pack(_NLMSG.size + len(ask), SOCK_DIAG_BY_FAMILY, NLMSG_REQUEST, 1, 0)
        netlink.sendto(head + ask, (0, 0))
        answer = netlink.recv(4096)
    length, kind, *_ = _NLMSG.unpack_from(answer)
    if kind != SOCK_DIAG_BY_FAMILY:
        return None
    at = _NLMSG.size + _TOLD.size
    while at + _ATTRIBUTE.size <= min(length, len(answer)):
        size, name = _ATTRIBUTE.unpack_from(answer, at)
        if name == UNIX_DIAG_RQLEN:
            now, most = _LENGTHS.unpack_from(answer, at + _ATTRIBUTE.size)
            return now, most
        at += max(4, (size + 3) & ~3)
    return None
