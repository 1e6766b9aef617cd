"""Where the control socket of a unit is: in its RuntimeDirectory=, which systemctl tells, for instances too.

The units of the system are asked for, or with `user` those of the caller's own service manager (systemctl --user).
"""

import os
import subprocess

ASK = ("show", "--property=LoadState,RuntimeDirectory", "--")


class NoSocketError(Exception):
    """Says why a unit has no control socket that could be found."""


def runtime_directory(user: bool) -> str:
    """What RuntimeDirectory= is relative to (systemd.exec(5))."""
    return (os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") if user else "/run"


def socket_of(unit: str, user: bool = False) -> str:
    """The path of a unit's control socket. Raises NoSocketError."""
    name = unit if "." in unit else f"{unit}.service"
    systemctl = ["systemctl", "--user"] if user else ["systemctl"]
    try:
        asked = subprocess.run([*systemctl, *ASK, name], capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoSocketError(
            f"systemctl cannot be asked for {name}: {error.strerror}; give the socket with -s"
        ) from None
    if asked.returncode:
        raise NoSocketError(f"{' '.join(systemctl)} does not tell of {name}: {asked.stderr.strip()}")
    return found(name, asked.stdout, user)


def found(name: str, shown: str, user: bool = False) -> str:
    """The path, from what `systemctl show` prints. Raises NoSocketError."""
    told = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if told.get("LoadState") != "loaded":
        others = (
            "without --user, the system's are asked" if user else "with --user, your own service manager's are asked"
        )
        raise NoSocketError(f"there is no unit {name} (LoadState={told.get('LoadState', '')}); {others}")
    directories = told.get("RuntimeDirectory", "").split()
    if not directories and not name.endswith(".service"):
        raise NoSocketError(f"{name} is no service; try -u {name.rpartition('.')[0]}")
    if not directories:
        raise NoSocketError(f"{name} has no RuntimeDirectory=, and so no control socket")
    return os.path.join(runtime_directory(user), directories[0], "control")
