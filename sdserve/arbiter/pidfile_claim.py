"""The pidfile as a master's claim: `.2` beside an old master, the name itself from the promotion on, none at the end.

A claim that cannot be made ends a start. Later it is a line in the log, and no reason to stop serving.
"""

from collections.abc import Callable

from sdserve.arbiter.host import Host
from sdserve.errors import PidfileError
from sdserve.log import Logger
from sdserve.process.pidfile import Pidfile


class PidfileClaim:
    """The pidfile of one master, if it has one."""

    def __init__(self, host: Host, log: Logger) -> None:
        self._host = host
        self._log = log
        self.pidfile: Pidfile | None = None
        self._name = ""

    def make(self, path: str | None, *, second: bool) -> None:
        """Claims `path`, or `path`.2 as the `second` master. Raises PidfileError."""
        if path is not None:
            pidfile = self._host.pidfile(f"{path}.2" if second else path)
            pidfile.create(self._host.pid())
            self.pidfile, self._name = pidfile, path

    def follow(self, path: str | None, *, second: bool) -> None:
        """Moves to the path of another configuration, or makes good for a file that somebody took away or nobody could
        write. The old file stays until the new one is there.
        """
        try:
            if path is None or self.pidfile is None or not self.pidfile.holds():
                self.release()
                self.make(path, second=second)
            else:
                self._name = path
                self.pidfile.rename(f"{path}.2" if second else path)
        except PidfileError as error:
            self._log.error("%s", error)

    def promote(self) -> None:
        """Takes the name itself; not that of a configuration which is being tried only."""
        if self.pidfile is not None:
            self._try(self.pidfile.rename, self._name)

    def forget_second(self, pid: int) -> None:
        """Takes away the file of a new master that was killed before it could do so."""
        if self.pidfile is not None:
            self._try(self._host.pidfile(f"{self._name}.2").forget, pid)

    def release(self) -> None:
        """Takes the file away, if it is still ours."""
        self.end()
        self.pidfile = None

    def end(self) -> None:
        """Takes the file away for good; hooks still read which it was."""
        if self.pidfile is not None:
            self._try(self.pidfile.unlink)

    def _try(self, step: Callable[..., None], *args: object) -> None:
        try:
            step(*args)
        except PidfileError as error:
            self._log.error("%s", error)
