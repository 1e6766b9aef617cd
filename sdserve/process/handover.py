"""The connection between an old and a new master during an upgrade.

A SOCK_SEQPACKET socketpair (unix(7)) that the new master inherits across exec; its number travels in one environment
variable. Each message is one JSON object with a `type`, and readers ignore types and fields that they do not know: the
two ends may be of different versions of sdserve.

    old → new   hello   what the listeners are, written before the new master even exists
    old → new   counters the memory of counters, next to it
    new → old   ready   its workers serve
    new → old   failed  it cannot serve, and why
    old → new   control the control socket, if there is one
    old → new   main    systemd has been told: you are the main process now,
                        and how long the old one's workers may take to leave;
                        with the listeners that it does not have yet
    old → new   heard   systemd takes you for the main process only from now on
    old → new   reload  somebody asked the old one for a reload, which it does not finish,
                        or has finished before the new one takes over; then with listeners as above
    old → new   stop    systemd stops the service, and knows the old one alone as its main process
    new → old   ending  it was told to stop, whether a restart follows, and how long its workers may take to leave

The end of file means that the other end is gone.
"""

import os
import socket
import struct
from collections.abc import MutableMapping, Sequence
from typing import Any

from sdserve.process import rights

VARIABLE = "_SDSERVE_HANDOVER"
_CREDENTIALS = struct.Struct("3i")


class Handover:
    """One end of the connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    @classmethod
    def pair(cls) -> "tuple[Handover, Handover]":
        """(the old master's end, the new master's end)"""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def inherited(cls, environ: MutableMapping[str, str]) -> "Handover | None":
        """The new master's end, if this process is one. Takes the variable out of `environ`."""
        text = environ.pop(VARIABLE, "")
        if not text.isdigit():
            return None
        fd = int(text)
        try:
            sock = socket.socket(fileno=fd)
        except OSError:  # the variable was inherited by mistake, the descriptor was not
            return None
        os.set_inheritable(fd, False)
        return cls(sock)

    def peer_pid(self) -> int:
        """The pid of the process that made the pair: the old master (SO_PEERCRED, unix(7))."""
        size = _CREDENTIALS.size
        return int(_CREDENTIALS.unpack(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0])

    def send(self, type: str, fds: Sequence[int] = (), **fields: Any) -> bool:
        """Sends one message, with copies of `fds` (SCM_RIGHTS, unix(7)); false if the other end is gone.

        Raises OSError, with rights.NOT_NOW among others, when the kernel does not take it.
        """
        import json  # a start without an old master passes by here, and need not wait for it

        try:
            socket.send_fds(self._sock, [json.dumps({"type": type, **fields}).encode()], list(fds))
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """The next message, {"type": "gone"} at the end of file, None if there is nothing yet.

        `fds` lists the descriptors that came with it; they are the caller's to close.
        """
        import json

        try:
            data, fds, _ = self._received()
        except BlockingIOError:
            return None
        if not data:
            return {"type": "gone"}
        return {**json.loads(data), "fds": fds}

    def _received(self) -> tuple[bytes, list[int], bool]:
        """One message. First we are told that an end closed without reading all of ours, and then what it had said."""
        try:
            return rights.receive(self._sock, 65536)
        except ConnectionResetError:
            return rights.receive(self._sock, 65536)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()
