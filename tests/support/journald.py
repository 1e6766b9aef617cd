"""journald's native socket, as far as a test needs one: it takes records, and reads them strictly."""

import array
import fcntl
import os
import re
import socket
from pathlib import Path

NAME = re.compile(rb"[A-Z][A-Z0-9_]{0,63}")


class Journald:
    """Listens at `path`. `records` reads all that was sent by now."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.bind(self.address)
        self.sealed = 0  # records that came as a file

    def records(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        while True:
            try:
                data, control, _, _ = self.sock.recvmsg(1 << 20, socket.CMSG_SPACE(4))
            except BlockingIOError:
                return found
            for _, _, fds in control:
                data = self._of_file(array.array("i", fds)[0])
            found.append(parsed(data))

    def _of_file(self, fd: int) -> bytes:
        with open(fd, "rb") as file:
            all_seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == all_seals
            self.sealed += 1
            return os.pread(file.fileno(), 1 << 26, 0)

    def close(self) -> None:
        self.sock.close()
        os.unlink(self.address)


def parsed(data: bytes) -> dict[str, str]:
    """The fields of one record. AssertionError for what journald would drop or misread."""
    fields: dict[str, str] = {}
    while data:
        line, end, rest = data.partition(b"\n")
        assert end, line
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + size], rest[8 + size :]
            assert data[:1] == b"\n"
            data = data[1:]
        else:
            data = rest
        assert NAME.fullmatch(name) and name.decode() not in fields, name
        fields[name.decode()] = value.decode()
    return fields
