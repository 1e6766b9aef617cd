"""What a server answers, byte by byte: one connection, raw requests, and answers as they were on the wire.

Reads what a well-behaved client would, and no more: `rest` tells what came behind it. Nothing is forgiven: a body that
ends before its end is told as such.
"""

import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType

from tests.support.server import connector

Address = tuple[str, int] | str
RESET = struct.pack("ii", 1, 0)


@dataclass
class Response:
    """One answer. `fields` are as they came; `whole`: its end was seen."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = False
    chunks: list[int] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list["Response"] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        """The values of a field, joined; "" without."""
        return ", ".join(value for key, value in self.fields if key.lower() == name.lower())


class Wire:
    """One connection to `address`."""

    def __init__(self, address: Address, sent: bytes = b"") -> None:
        self.sock = connector(address)()
        self._stream = self.sock.makefile("rb")
        if sent:
            self.send(sent)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, data: bytes) -> "Wire":
        self.sock.sendall(data)
        return self

    def half(self) -> "Wire":
        """Says that nothing more will come."""
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        self._stream.close()
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def head(self) -> Response:
        """The next head, with the interim ones before it. Raises EOFError where none comes."""
        line = self._line()
        version, _, said = line.partition(" ")
        assert version == "HTTP/1.1", line
        status, _, reason = said.partition(" ")
        found = Response(int(status), reason, self._fields())
        if found.status < 200:
            final = self.head()
            final.interim.insert(0, found)
            return final
        return found

    def response(self, method: str = "GET") -> Response:
        """The next answer; one that was cut short is not `whole`."""
        found = self.head()
        if method == "HEAD" or found.status in (204, 304):
            found.whole = True
        elif found["Transfer-Encoding"]:
            assert not found["Content-Length"], "both framings"
            self._chunks(found)
        elif found["Content-Length"]:
            size = int(found["Content-Length"])
            found.body = self._take(size)
            found.whole = len(found.body) == size
        else:
            found.body, found.whole = self.rest(), True
        return found

    def rest(self) -> bytes:
        """All that comes until the server closes. Raises ConnectionResetError where it does not close in order."""
        return self._stream.read()

    def _take(self, size: int) -> bytes:
        try:
            return self._stream.read(size) or b""
        except ConnectionResetError:
            return b""

    def _chunks(self, found: Response) -> None:
        while line := self._take_line():
            size = int(line, 16)
            if not size:
                found.trailers = self._fields()
                found.whole = True
                return
            found.chunks.append(size)
            data = self._take(size)
            found.body += data
            if len(data) < size or self._take(2) != b"\r\n":
                return

    def _take_line(self) -> bytes:
        try:
            return self._stream.readline()
        except ConnectionResetError:
            return b""

    def _line(self) -> str:
        line = self._stream.readline()
        if not line:
            raise EOFError("the server has closed")
        assert line.endswith(b"\r\n"), line
        return line[:-2].decode("latin-1")

    def _fields(self) -> list[tuple[str, str]]:
        found = []
        while line := self._line():
            name, colon, value = line.partition(":")
            assert colon and name == name.strip(), line
            found.append((name, value.strip()))
        return found


def get(path: str, *lines: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    """A request as bytes."""
    size = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: a", *lines, *size, "", ""]).encode("latin-1") + body


def exchange(address: Address, data: bytes, method: str = "GET") -> Response:
    """One answer on a connection of its own, to be sent nothing else."""
    with Wire(address, data) as wire:
        return wire.response(method)
