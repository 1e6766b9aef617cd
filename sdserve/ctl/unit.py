"""Where the control socket of a unit is: in its RuntimeDirectory=, which systemctl tells, for instances too."""

import os
import subprocess

ASK = ("show", "--property=LoadState,RuntimeDirectory", "--")


class NoSocketError(Exception):
    """Says why a unit has no control socket that could be found."""


def socket_of(unit: str) -> str:
    """The path of a unit's control socket. Raises NoSocketError."""
    name = unit if "." in unit else f"{unit}.service"
    try:
        asked = subprocess.run(["systemctl", *ASK, name], capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoSocketError(
            f"systemctl cannot be asked for {name}: {error.strerror}; give the socket with -s"
        ) from None
    if asked.returncode:
        raise NoSocketError(f"systemctl does not tell of {name}: {asked.stderr.strip()}")
    return found(name, asked.stdout)


def found(name: str, shown: str) -> str:
    """The path, from what `systemctl show` prints. Raises NoSocketError."""
    told = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if told.get("LoadState") != "loaded":
        raise NoSocketError(f"there is no unit {name} (LoadState={told.get('LoadState', '')})")
    directories = told.get("RuntimeDirectory", "").split()
    if not directories:
        raise NoSocketError(f"{name} has no RuntimeDirectory=, and so no control socket")
    return os.path.join("/run", directories[0], "control")
