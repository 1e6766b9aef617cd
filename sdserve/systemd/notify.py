"""What systemd is told about the service: sd_notify(3).

Each method is one message with all that belongs to it, so systemd never sees half a change. Without NOTIFY_SOCKET
nothing is sent. A notification that fails must not harm the service: the error is kept in `trouble`, the message in
`unsent`, for a systemd that is being replaced (systemctl daemon-reexec) hears nothing for a moment, and `on_failure` is
called.

A master that is not (yet) the unit's main process is `muted`: systemd would refuse its messages and log each.
"""

import array
import os
import socket
from collections.abc import Callable, Mapping, MutableMapping, Sequence

from sdserve.descriptor import Descriptor
from sdserve.systemd.records import printable

# Worth nothing later: signs of life, wishes for time; descriptors, which are closed by then (fdstore.py has a proof).
MOMENTARY = ("WATCHDOG", "WATCHDOG_USEC", "EXTEND_TIMEOUT_USEC", "FDSTORE")
LONGEST = 3072  # bytes of an assignment: systemd takes no notice of a message of more than 4096
PATIENCE = 0.1  # seconds, while systemd has no room for one more message
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def is_main_process(environ: Mapping[str, str], pid: int) -> bool:
    """Whether systemd runs `pid` as the main process of a unit (SYSTEMD_EXEC_PID, systemd.exec(5))."""
    return environ.get("SYSTEMD_EXEC_PID") == str(pid)


def main_process(environ: Mapping[str, str], pid: int, successor: int) -> dict[str, str]:
    """The environment that tells the successor of `pid` that it is the main process, if `pid` is."""
    return {"SYSTEMD_EXEC_PID": str(successor)} if is_main_process(environ, pid) else {}


def deaf_supervisor(environ: Mapping[str, str], pid: int) -> bool:
    """Whether systemd runs `pid` as a main process and hears no notifications.

    Such a unit, Type=simple for instance, cannot be told of another main process: it ends with this one.
    """
    return is_main_process(environ, pid) and "NOTIFY_SOCKET" not in environ


def awaited(environ: Mapping[str, str]) -> bool:
    """Whether somebody waits for this process to say that it is ready."""
    return "NOTIFY_SOCKET" in environ


class Notifier:
    """The connection to the service manager."""

    def __init__(self, socket_path: str | None, *, muted: bool = False) -> None:
        self._socket_path = socket_path
        self._status = ""
        self.muted = muted
        self.trouble: OSError | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.unsent: list[str] = []  # in their order, for `send_again`

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str], *, muted: bool = False) -> "Notifier":
        """Reads NOTIFY_SOCKET and takes it out of `environ`: applications and their children must not speak for us."""
        return cls(environ.pop("NOTIFY_SOCKET", None), muted=muted)

    @property
    def enabled(self) -> bool:
        return self._socket_path is not None

    def ready(self, status: str) -> None:
        """The service serves: after start, and after each reload, whether that succeeded or not."""
        self._status = status
        self._send("READY=1", f"STATUS={status}")

    def takes_over(self, status: str) -> None:
        """This process is the unit's main process from now on, a sign of life of which is due.

        Without READY=1, which the unit has heard of the one before: that had perhaps told the end of a reload by it,
        and systemd 262 forgets this at another READY=1, if the ExecReload= of that reload has not ended yet.
        """
        self.watchdog()
        self._status = ""  # what was said before was not heard
        self.status(status)

    def status(self, status: str) -> None:
        """One line for `systemctl status`; sent only when it changed."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def reloaded(self, status: str, began: float) -> None:
        """A reload is over, whether it succeeded or not; it began at `began` (monotonic seconds).

        systemd hears of beginning and end in one breath. Type=notify-reload demands both, and the time, else `systemctl
        reload` times out. Having heard of the beginning alone, systemd is in a state that only our next word ends:
        should the main process die before, it takes no notice, and nobody serves until the watchdog bites. One message
        with both would not do: systemd 262 takes none for the end of a reload that an ExecReload= has begun.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(began * 1e6)}")
        self.ready(status)

    def stopping(self, status: str) -> None:
        """The service ends. Never sent by a master that has a successor."""
        self._status = status
        self._send("STOPPING=1", f"STATUS={status}")

    def failed(self, status: str, errno: int) -> None:
        """The service ends because of `status` (one line); `errno` as in errno(3), 0 if that says nothing."""
        self._status = status
        self._send(f"STATUS={status}", *([f"ERRNO={errno}"] if errno else []))

    def extend_timeout(self, seconds: float) -> None:
        """The running start, reload or stop may take this much longer from now, and so may the next sign of life."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def watchdog(self) -> bool:
        """A sign of life; false when systemd did not hear it."""
        return self._send("WATCHDOG=1")

    def watchdog_again(self, interval: float) -> None:
        """The watchdog's deadline is `interval` seconds from now, wherever EXTEND_TIMEOUT_USEC= has moved it."""
        self._send(f"WATCHDOG_USEC={int(interval * 1e6)}")

    def main_pid(self, pid: int) -> None:
        """Hands the unit to another process. With NotifyAccess=exec only the main process of the moment does."""
        self._send(f"MAINPID={pid}")

    def barrier(self) -> "Barrier | None":
        """What tells when systemd has handled all messages up to now; None where that cannot be known."""
        if self._socket_path is None:
            return None
        try:
            barrier = Barrier()
        except OSError as error:
            self.trouble = error
            return None
        handled = self._deliver("BARRIER=1", [barrier.theirs])
        os.close(barrier.theirs)
        if handled:
            return barrier
        barrier.close()
        return None

    def store(self, name: str, fd: int) -> bool:
        """Has systemd keep a copy of `fd` as `name`; without FileDescriptorStoreMax= it only logs that it cannot.

        False when systemd did not hear it. What it was to forget before, perhaps by this name, comes first.
        """
        return self.send_again() and self._send("FDSTORE=1", f"FDNAME={name}", fds=[fd])

    def forget(self, name: str) -> None:
        """Has systemd drop what it keeps as `name`."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def variables(self) -> dict[str, str]:
        """The environment that lets a successor notify."""
        return {} if self._socket_path is None else {"NOTIFY_SOCKET": self._socket_path}

    def _send(self, *fields: str, fds: Sequence[int] = ()) -> bool:
        """False when it was not heard; where nobody is to hear it, that is no failure."""
        if self.muted or self._socket_path is None:
            return True
        message = "\n".join(map(_fitting, fields))
        momentary = message.partition("=")[0] in MOMENTARY
        if (momentary or self.send_again()) and self._deliver(message, fds):
            self.send_again()  # if a sign of life was heard, so is what was not before
            return True
        if not momentary:
            self._keep(message)
        self.on_failure()
        return False

    def _keep(self, message: str) -> None:
        """For later; of statuses in a row the last one counts."""
        if message.startswith("STATUS=") and self.unsent and self.unsent[-1].startswith("STATUS="):
            del self.unsent[-1]
        self.unsent.append(message)

    def send_again(self) -> bool:
        """Sends what could not be sent; whether nothing is left."""
        while self.unsent and self._deliver(self.unsent[0]):
            del self.unsent[0]
        return not self.unsent

    def _deliver(self, message: str, fds: Sequence[int] = ()) -> bool:
        """Whether systemd has it. Not by libsystemd, which waits without a limit where systemd does not read."""
        address = str(self._socket_path)
        if address.startswith("@"):  # unix(7): an abstract one
            address = "\0" + address[1:]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(PATIENCE)
                sock.sendmsg([message.encode(errors="replace")], rights, 0, address)
        except OSError as error:
            self.trouble = error
            return False
        return True


def _fitting(field: str) -> str:
    """An assignment as it may stand in a message, on one line."""
    field = printable(field[:LONGEST]).replace("\n", " ")
    data = field.encode(errors="replace")
    return field if len(data) <= LONGEST else data[:LONGEST].decode(errors="ignore") + "..."


class Barrier(Descriptor):
    """A pipe whose end systemd closes, and so makes readable, in its turn: sd_notify_barrier(3), without waiting.

    Raises OSError like pipe(2).
    """

    def __init__(self) -> None:
        ours, self.theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        super().__init__(ours)
