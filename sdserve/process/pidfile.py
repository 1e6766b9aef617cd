"""The pidfile: who the master is, for programs that do not ask systemd.

It is written beside its place and renamed into it, so no reader ever sees half a number; it is removed only while it
still holds our own pid. A file that names a process which is gone is stale and replaced.
"""

import errno
import os
from contextlib import suppress

from sdserve.errors import PidfileError


class Pidfile:
    """One pidfile. `fname` and `pid` are public, as in gunicorn."""

    def __init__(self, fname: str) -> None:
        self.fname = fname
        self.pid: int | None = None

    def create(self, pid: int) -> None:
        """Writes `pid`. Raises PidfileError when another running process holds the file, or it cannot be written."""
        self._demand_free(self.fname, pid)
        self._write(self.fname, pid)
        self.pid = pid

    def rename(self, fname: str) -> None:
        """Moves to another path: how a promoted master drops the `.2`. Raises PidfileError.

        The file itself moves, which needs no room on the disk. To another disk it is written before the old one goes:
        readers find the pid at any moment.
        """
        pid, old = self.pid, self.fname
        if pid is not None and fname != old:
            self._demand_free(fname, pid)
            ours = self._read(old) == pid
            if not (ours and self._moves(fname)):
                self._write(fname, pid)
                if ours:
                    self._remove(old)
        self.fname = fname

    def forget(self, pid: int) -> None:
        """Removes the file if it names `pid`, a process that has ended."""
        if self._read(self.fname) == pid:
            self._remove(self.fname)

    def unlink(self) -> None:
        """Removes the file if it still names the process that we wrote; anybody else's is left alone."""
        if self.pid is not None:
            self.forget(self.pid)
        self.pid = None

    def holds(self) -> bool:
        """Whether the file is there and names the process that we wrote."""
        return self.pid is not None and self._read(self.fname) == self.pid

    def validate(self) -> int | None:
        """The pid of the running process that the file names, None if it is missing, unreadable as a pid, or stale."""
        return self._holder(self.fname)

    def _holder(self, fname: str) -> int | None:
        pid = self._read(fname)
        return pid if pid is not None and self._runs(pid) else None

    def _demand_free(self, fname: str, pid: int) -> None:
        """Raises PidfileError when a running process other than `pid` holds the file."""
        if (holder := self._holder(fname)) not in (None, pid):
            raise PidfileError(f"already running on pid {holder}: the pidfile {fname} names it")

    def _read(self, fname: str) -> int | None:
        try:
            with open(fname, encoding="ascii", errors="replace") as file:
                text = file.read(64).strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PidfileError(f"cannot read the pidfile {fname}: {error.strerror}") from error
        return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 2**31 else None

    def _write(self, fname: str, pid: int) -> None:
        beside = f"{fname}.{pid}.new"
        try:
            remove(beside)
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with open(fd, "w", encoding="ascii") as file:
                file.write(f"{pid}\n")
                os.fchmod(fd, 0o644)
            os.replace(beside, fname)
        except OSError as error:
            with suppress(OSError):
                remove(beside)
            raise _cannot_write(fname, error) from error

    def _moves(self, fname: str) -> bool:
        try:
            os.replace(self.fname, fname)
        except OSError:
            return False
        return True

    def _remove(self, fname: str) -> None:
        try:
            remove(fname)
        except OSError as error:
            raise PidfileError(f"cannot remove the pidfile {fname}: {error.strerror}") from error

    def _runs(self, pid: int) -> bool:
        """Not while it only waits for its parent to reap it, as an old master may when its successor is promoted."""
        with suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            if file.read().rpartition(") ")[2][:1] in ("Z", "X"):
                return False
        try:  # /proc may hide it (proc(5), hidepid)
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it runs, as somebody else
            return True
        return True


def demand_place(fname: str) -> None:
    """Raises PidfileError when the directory of a pidfile is one that this process may not write to."""
    try:
        place = os.open(os.path.dirname(fname) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=place, effective_ids=True):
                why = errno.EROFS if os.fstatvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
                raise OSError(why, os.strerror(why))
        finally:
            os.close(place)
    except OSError as error:
        raise _cannot_write(fname, error) from error


def _cannot_write(fname: str, error: OSError) -> PidfileError:
    return PidfileError(f"cannot write the pidfile {fname}: {error.strerror}{_where_to_write()}")


def _where_to_write() -> str:
    """The place that a unit makes for pidfiles and sockets (RuntimeDirectory=, systemd.exec(5)), if there is one."""
    place = os.environ.get("RUNTIME_DIRECTORY", "")
    return f"; this unit's place for it is {place}" if place else ""


def remove(path: str) -> None:
    """Removes a file if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)
