"""A terminal with a program in it, and what stands on its screen.

It is a VT52: curses knows it (TERM=vt52, of ncurses-base), and it has so few commands that all of them are here.
"""

import os
import pty
import re
import signal
import termios
import time
from collections.abc import Callable, Mapping, Sequence

from tests.support.waiting import PATIENCE, readable

COMMAND = re.compile(r"\x1bY(.)(.)|\x1b([A-Z=>])|([\r\n\b\t\a])|([^\x1b])", re.DOTALL)


class Screen:
    """What stands where. Text beyond the last column goes to where it stands, and is found there."""

    def __init__(self) -> None:
        self._at: dict[tuple[int, int], str] = {}
        self._row = self._column = 0
        self._rest = ""

    @property
    def text(self) -> str:
        rows: dict[int, dict[int, str]] = {}
        for (row, column), character in self._at.items():
            rows.setdefault(row, {})[column] = character
        lines = (rows.get(row, {}) for row in range(max(rows, default=-1) + 1))
        return "\n".join("".join(line.get(each, " ") for each in range(max(line, default=-1) + 1)) for line in lines)

    def write(self, data: str) -> None:
        data = self._rest + data
        end = 0
        for found in COMMAND.finditer(data):
            row, column, command, control, character = found.groups()
            end = found.end()
            if row:
                self._row, self._column = ord(row) - 32, ord(column) - 32
            elif command:
                self._obey(command)
            elif control:
                self._control(control)
            else:
                self._at[self._row, self._column] = character
                self._column += 1
        self._rest = data[end:]

    def _obey(self, command: str) -> None:
        here = self._row, self._column
        if command == "H":
            self._row = self._column = 0
        elif command == "J":
            self._at = {at: character for at, character in self._at.items() if at < here}
        elif command == "K":
            self._at = {at: each for at, each in self._at.items() if at[0] != here[0] or at < here}
        elif command in "ABCD":
            down, right = {"A": (-1, 0), "B": (1, 0), "C": (0, 1), "D": (0, -1)}[command]
            self._row, self._column = self._row + down, self._column + right
        else:
            assert command in "=>FG", f"the terminal does not know {command!r}"

    def _control(self, control: str) -> None:
        if control == "\r":
            self._column = 0
        elif control == "\n":
            self._row += 1
        elif control == "\b":
            self._column -= 1
        elif control == "\t":
            self._column = (self._column // 8 + 1) * 8


class Terminal:
    """Runs `argv` with the environment `env` in a terminal of its own, of 24 lines and 80 columns.

    term: what the program takes it for
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], term: str = "vt52") -> None:
        environ = {name: value for name, value in env.items() if name not in ("LINES", "COLUMNS")} | {"TERM": term}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            termios.tcsetwinsize(0, (24, 80))
            os.execve(argv[0], [*argv], environ)
        self.screen = Screen()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *how: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self.fd)

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def write(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def resize(self, height: int, width: int) -> None:
        """The kernel sends SIGWINCH (tty_ioctl(4)); who hears of it draws everything anew."""
        self.screen = Screen()
        termios.tcsetwinsize(self.fd, (height, width))

    def until(self, *patterns: str, meanwhile: Callable[[], None] = lambda: None) -> str:
        """Reads until all of `patterns` stand on the screen, and returns it; does `meanwhile` all the time."""
        late = time.monotonic() + PATIENCE
        while missing := [each for each in patterns if not re.search(each, self.screen.text)]:
            assert time.monotonic() < late, f"{missing} is not on the screen:\n{self.screen.text}"
            meanwhile()
            if readable(self.fd, timeout=0.1):
                self.screen.write(os.read(self.fd, 65536).decode("latin-1"))
        return self.screen.text
