"""Sockets passed by systemd: LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES (sd_listen_fds(3))."""

from collections.abc import MutableMapping

from sdserve.errors import ListenError
from sdserve.immutable import Immutable

VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class Passed(Immutable):
    """One passed file descriptor. `name` is FileDescriptorName= of its unit; several may share one."""

    fd: int
    name: str


def take(environ: MutableMapping[str, str]) -> list[Passed]:
    """The descriptors meant for this process, in systemd's order; [] when there are none.

    Order tells nothing between socket units, so identify them by name and address. libsystemd checks LISTEN_PID and
    sets close-on-exec. It forgets the variables in the C environment alone, so `environ` is cleaned here, else the
    next exec would pass them on. Raises ListenError when the variables name descriptors that are not open.
    """
    if "LISTEN_FDS" not in environ:
        return []
    from systemd import daemon

    try:
        passed = [Passed(fd, name) for fd, name in daemon.listen_fds_with_names(unset_environment=False).items()]
    except OSError as error:
        raise ListenError(f"LISTEN_FDS={environ['LISTEN_FDS']} cannot be used: {error.strerror}") from error
    for variable in VARIABLES:
        environ.pop(variable, None)
    return passed


def variables(pid: int, names: list[str]) -> dict[str, str]:
    """The environment that passes `len(names)` descriptors, at 3 and up, to the process `pid`."""
    # A colon would end the name, and systemd itself refuses it in FileDescriptorName=.
    fdnames = ":".join(name.replace(":", "_") for name in names)
    return {"LISTEN_PID": str(pid), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": fdnames}
