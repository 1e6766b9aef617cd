"""The environment that a unit gives to its commands, and whether it has changed since the service was started.

systemd reads `EnvironmentFile=` again for each command (systemd.exec(5)), also for ExecReload=: that command sees what
the running service does not. Values may be secrets, so only digests of them leave a process.
"""

from _blake2 import blake2b  # hashlib's, without the OpenSSL that it loads
from collections.abc import Mapping

# What systemd sets for each process by itself (systemd.exec(5)), and what shells and Python add.
_OWN = ("LISTEN_", "WATCHDOG_", "CPU_PRESSURE_", "IO_PRESSURE_", "MEMORY_PRESSURE_", "MONITOR_", "TRIGGER_")
_EACH = {
    *("INVOCATION_ID", "MAINPID", "MAINPIDFDID", "MANAGERPID", "MANAGERPIDFDID"),
    *("NOTIFY_SOCKET", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "FDSTORE"),
    *("PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"),
}


def digests(environ: Mapping[str, str]) -> dict[str, str]:
    """A digest of each variable that the unit has set; INVOCATION_ID says of which run it is."""
    names = [name for name in environ if name not in _EACH and not name.startswith(_OWN)]
    if "INVOCATION_ID" in environ:
        names.append("INVOCATION_ID")
    return {name: blake2b(environ[name].encode(errors="surrogateescape"), digest_size=8).hexdigest() for name in names}


def changed(started: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names whose digests differ; none where the two are not of one run of one unit."""
    run = now.get("INVOCATION_ID")
    if run is None or run != started.get("INVOCATION_ID"):
        return []
    return sorted(name for name in {*started, *now} if started.get(name) != now.get(name))
