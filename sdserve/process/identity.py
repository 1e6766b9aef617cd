"""As whom workers run: user, group and supplementary groups, which only who has the capabilities may change."""

import os
from contextlib import suppress

from sdserve.errors import BootError

CAP_SETGID, CAP_SETUID = 1 << 6, 1 << 7  # capabilities(7)


def take(uid: int, gid: int, *, initgroups: bool) -> None:
    """Becomes that user and group. Raises BootError when this process may not."""
    try:
        if gid != os.getegid():
            os.setgid(gid)
        if uid != os.geteuid():
            _set_groups(uid, gid, initgroups)
            os.setuid(uid)
    except PermissionError as error:
        raise _refused(uid, gid, error) from None


def demand(uid: int, gid: int) -> None:
    """Raises BootError where `take` would, in this process and what it forks."""
    needed = CAP_SETUID | CAP_SETGID if uid != os.geteuid() else CAP_SETGID if gid != os.getegid() else 0
    if needed and needed & ~_capabilities():
        raise _refused(uid, gid, PermissionError(1, os.strerror(1)))


def _set_groups(uid: int, gid: int, initgroups: bool) -> None:
    if initgroups:
        import pwd

        os.initgroups(pwd.getpwuid(uid).pw_name, gid)
    else:
        os.setgroups([gid])  # root's supplementary groups must not stay


def _capabilities() -> int:
    """The effective ones; all where the kernel does not tell, as `take` will."""
    with suppress(OSError, ValueError), open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return -1


def _refused(uid: int, gid: int, error: OSError) -> BootError:
    wanted = {"user": (uid, os.geteuid()), "group": (gid, os.getegid())}
    changes = {name: there for name, (there, here) in wanted.items() if there != here}
    whom = " and ".join(f"{name} {there}" for name, there in changes.items())
    return BootError(
        f"cannot become {whom}: only root may ({error.strerror}); leave the setting {' and '.join(changes)} out"
        " (under systemd, User= and Group= of the unit say who serves)"
    )
