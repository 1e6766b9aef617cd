"""The receiving end of sd_notify(3): what a service tells its manager, in order, with an event for each message."""

import array
import os
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from tests.support.waiting import PATIENCE, readable


@dataclass(frozen=True)
class Message:
    """One datagram: its assignments, who sent it, and when (monotonic seconds)."""

    fields: dict[str, str]
    pid: int
    at: float

    def __contains__(self, assignment: str) -> bool:
        """`"READY=1" in message`, or `"STATUS" in message` for any value."""
        name, equals, value = assignment.partition("=")
        return name in self.fields and (not equals or self.fields[name] == value)


class NotifySocket:
    """A datagram socket as systemd's; `address` is the value of NOTIFY_SOCKET: abstract, or the file `path`."""

    def __init__(self, path: str = "") -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.address = path or f"@sdserve-test-{uuid.uuid4().hex}"
        self._sock.bind(path or "\0" + self.address[1:])
        self._messages: list[Message] = []
        self._news = threading.Condition()
        self._end, self._stop = os.pipe()
        self._closed = False
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.close(self._stop)
        self._thread.join()
        with self._news:
            self._take()
            self._closed = True
        os.close(self._end)
        self._sock.close()

    def __enter__(self) -> "NotifySocket":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def messages(self) -> list[Message]:
        """All that was sent until now; nothing is left in the socket."""
        with self._news:
            self._take()
            return list(self._messages)

    @property
    def mark(self) -> int:
        """A place in the stream of messages, for `wait(…, since=mark)`."""
        return len(self.messages)

    def wait(self, wanted: str | Callable[[Message], object], since: int = 0, timeout: float = PATIENCE) -> Message:
        """Wait for a message from place `since` on that holds the assignment, or satisfies the predicate."""

        def match() -> Message | None:
            for message in self._messages[since:]:
                if (wanted in message) if isinstance(wanted, str) else wanted(message):
                    return message
            return None

        with self._news:
            if not self._news.wait_for(match, timeout):
                heard = [message.fields for message in self._messages[since:]]
                raise AssertionError(f"no {wanted} within {timeout:g} s; heard {heard}")
            found = match()
            assert found is not None
            return found

    def _receive(self) -> None:
        while True:
            if self._sock.fileno() not in readable(self._sock, self._end):
                return
            with self._news:
                self._take()

    def _take(self) -> None:
        """Hear what has come, whoever asks first: the thread, or a test that looks. The lock is held."""
        while not self._closed:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(65536, 4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            pid = 0
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid = struct.unpack_from("i", content)[0]
                elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds = array.array("i")
                    fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                    for fd in fds:
                        os.close(fd)
            fields = dict(line.partition("=")[::2] for line in data.decode(errors="replace").splitlines())
            self._messages.append(Message(fields, pid, time.monotonic()))
            self._news.notify_all()
