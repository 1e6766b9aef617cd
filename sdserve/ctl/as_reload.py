"""`sdservectl reload` as the ExecReload= of a unit: what systemd and its operator expect beyond the reload."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

ORPHANS = 60.0  # seconds to wait for workers whose master has died; TimeoutStartSec= of the unit is longer
# Signals that are meant for others and reach an ExecReload= as well: from `systemctl kill`, from the watchdog.
MASTERS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGABRT)
WORKERS = (signal.SIGRTMIN + 1, signal.SIGRTMIN + 2, signal.SIGRTMIN + 3)  # as workers/told.py names them


def begin(ask: Callable[[str], dict[str, Any]]) -> None:
    """Before the reload: ignores what is meant for others, and names changes of the environment that need a restart."""
    from sdserve.systemd.environment import changed, digests

    for number in (*MASTERS, *WORKERS):
        signal.signal(number, signal.SIG_IGN)
    started = ask("environment").get("environment", {})
    names = changed(started, digests(os.environ))
    if names:
        changes = f"the environment of the unit has changed ({', '.join(names)})"
        print(f"sdservectl: {changes}: a reload does not read it, systemctl restart does", file=sys.stderr)


def outlive_the_master() -> None:
    """The master has died: waits for its workers, and ends the reload in its place.

    Once we have ended, systemd kills the workers: with KillMode=mixed it does not wait for requests. They end by
    themselves after SDSERVE_ORPHAN_TIMEOUT. Since 253 it would wait for the READY=1 of this reload until
    TimeoutStartSec= is over, and restart the service only then.
    """
    from sdserve.process import control_group
    from sdserve.systemd.notify import Notifier

    try:
        control_group.await_others(ORPHANS)
    except OSError as error:
        print(f"sdservectl: cannot wait for the workers of the master that died: {error}", file=sys.stderr)
    notifier = Notifier.from_environ(os.environ)
    notifier.ready("The master died during a reload")
    if notifier.trouble is not None:
        print(f"sdservectl: cannot tell systemd that the reload is over: {notifier.trouble}", file=sys.stderr)
