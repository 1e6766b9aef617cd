"""Is a stream the journal? (JOURNAL_STREAM, systemd.exec(5))

A stream to journald lives as long as the journald at its other end: one that is stopped, not restarted, leaves all its
writers with a broken pipe. `reopen` connects such a stream again, as systemd did at the start of the service.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import TextIO

VARIABLE = "JOURNAL_STREAM"
ADDRESS = "/run/systemd/journal/stdout"
IDENTIFIER = "sdserve"

Identity = tuple[int, int]  # device and inode


def connected(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """True if `stream` goes to journald: its device and inode are the ones that JOURNAL_STREAM names."""
    named = _named(environ)
    try:
        return named is not None and _identity(stream.fileno()) == named
    except (OSError, ValueError):
        return False


def reopen(environ: MutableMapping[str, str], fd: int, dead: Identity, address: str = ADDRESS) -> bool:
    """Connects the standard stream `fd` to journald again, if it was; true if what it stands for now is not `dead`.

    stdout and stderr are one stream as a rule, so both follow, and JOURNAL_STREAM names the new one.
    """
    try:
        there = _identity(fd)
        if there != _named(environ):
            return False
        if there != dead:
            return True  # the other stream was broken as well, and has been mended
        with _connected(address) as stream:
            for number in (1, 2):
                if _identity(number) == there:
                    os.dup2(stream.fileno(), number)
            device, inode = _identity(stream.fileno())
    except OSError:
        return False
    environ[VARIABLE] = f"{device}:{inode}"
    return True


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that tells a successor about the stream that it inherits."""
    return {VARIABLE: environ[VARIABLE]} if VARIABLE in environ else {}


def _connected(address: str) -> socket.socket:
    """A stream to journald: its header says identifier, unit, priority, whether `<N>` counts, and three times no."""
    import socket

    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.setblocking(False)  # a journald that does not accept is not waited for
        stream.connect(address)
        stream.sendall(f"{IDENTIFIER}\n\n6\n1\n0\n0\n0\n".encode())
        stream.setblocking(True)
        stream.shutdown(socket.SHUT_RD)
    except OSError:
        stream.close()
        raise
    return stream


def _identity(fd: int) -> Identity:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _named(environ: Mapping[str, str]) -> Identity | None:
    device, _, inode = environ.get(VARIABLE, "").partition(":")
    return (int(device), int(inode)) if device.isdigit() and inode.isdigit() else None
