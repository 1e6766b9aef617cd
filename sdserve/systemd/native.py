"""Structured records for the journal, by journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

A record is one datagram of fields, sent at once or not at all. A value with a line end is sent by its length, so
nothing in a value begins another field. A record that is larger than a datagram goes as a sealed memfd, as in
sd_journal_send(3), which itself is not used: it would wait while journald does not read. If a record cannot be sent,
the caller says it by other means.

journald looks up in /proc whose record it reads. A process that is about to end must therefore still be there: see
`settle`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

ADDRESS = "/run/systemd/journal/socket"
SETTLE = 0.2  # seconds that a process waits, in all its life, for journald to read its last words
LOOK = 0.001  # seconds between two looks
TOO_LONG = (errno.EMSGSIZE, errno.ENOBUFS)
SIOCOUTQ = 0x5411  # bytes of a socket that nobody has read (unix(7))
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

_settling = SETTLE  # what is left of it


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Fields as journald reads them. Their names are our own: capitals, digits and `_`, a capital first."""
    parts: list[bytes] = []
    for name, text in fields:
        value = text.encode("utf-8", "backslashreplace")
        if b"\n" in value:
            parts += name.encode("ascii"), b"\n", len(value).to_bytes(8, "little"), value, b"\n"
        else:
            parts += name.encode("ascii"), b"=", value, b"\n"
    return b"".join(parts)


def send(record: bytes, last: bool = False, address: str = "") -> bool:
    """Sends a record, at once or not at all; returns whether it was sent.

    last: the process may end now. Waits until journald has read the record, or until `SETTLE` is over.
    """
    import socket

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            try:
                sock.sendto(record, flags, address or ADDRESS)
            except OSError as error:
                if error.errno not in TOO_LONG:
                    return False
                _send_sealed(sock, record, flags, address or ADDRESS)
            if last:
                settle(sock)
    except OSError:  # no descriptor, no memory, or no journald
        return False
    return True


def _send_sealed(sock: socket.socket, record: bytes, flags: int, address: str) -> None:
    import socket
    from array import array

    fd = os.memfd_create("sdserve-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(record)
        while left:
            left = left[os.write(fd, left) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        sock.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))], flags, address)
    finally:
        os.close(fd)


def settle(sock: socket.socket) -> None:
    """Waits until journald has read what was sent; all waits of a process together take `SETTLE` seconds at most."""
    global _settling
    while _settling > 0 and any(fcntl.ioctl(sock, SIOCOUTQ, bytes(4))):
        began = time.monotonic()
        time.sleep(LOOK)
        _settling -= time.monotonic() - began
