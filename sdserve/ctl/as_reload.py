"""`sdservectl reload` as the ExecReload= of a unit: what systemd and its operator expect beyond the reload."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sdserve.ctl.client import START_AGAIN, Answer

ANEW = 10.0  # seconds that a master has to make a control socket whose file is gone anew
ORPHANS = 60.0  # seconds to wait for workers whose master has died; TimeoutStartSec= of the unit is longer
# Signals that are meant for others and reach an ExecReload= as well: from `systemctl kill`, from the watchdog.
MASTERS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGABRT)
WORKERS = (signal.SIGRTMIN + 1, signal.SIGRTMIN + 2, signal.SIGRTMIN + 3)  # as workers/words.py names them


def begin(path: str, ask: Callable[[str], Answer]) -> None:
    """Before the reload: ignores what is meant for others, and names changes of the environment that need a restart.

    `path` is that of the control socket. Raises OSError if nobody answers there.
    """
    from sdserve.systemd.environment import changed, digests
    from sdserve.systemd.records import one_line, printable

    for number in (*MASTERS, *WORKERS):
        signal.signal(number, signal.SIG_IGN)
    started: dict[str, Any] = _reached(path, lambda: ask("environment")).get("environment", {})
    names = changed(started, digests(os.environ))
    if names:
        changes = f"the environment of the unit has changed ({', '.join(names)})"
        text = f"sdservectl: {changes}: a reload does not read it, systemctl restart does"
        print(printable(one_line(text)), file=sys.stderr)  # the names are whose the socket is


def _reached(path: str, ask: Callable[[], Answer]) -> Answer:
    """The master's answer. Where somebody has removed the socket's file, CONT has the master make it anew."""
    until = time.monotonic() + ANEW
    told = False
    while True:
        try:
            return ask()
        except FileNotFoundError:
            if not told and os.path.isdir(os.path.dirname(path)):
                told = _tell_the_master()
            if not told or time.monotonic() >= until:
                raise
            time.sleep(START_AGAIN)


def _tell_the_master() -> bool:
    """Whether the unit's main process, which systemd names to its commands, has been sent CONT."""
    pid = os.environ.get("MAINPID", "")
    if pid.isdecimal():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(int(pid), signal.SIGCONT)
            return True
    return False


def outlive_the_master() -> None:
    """The master has died: waits for its workers, and ends the reload in its place.

    Once we have ended, systemd kills the workers: with KillMode=mixed it does not wait for requests. They end by
    themselves after SDSERVE_ORPHAN_TIMEOUT. Had the master come to say RELOADING=1 and no more, systemd would wait for
    READY=1 until TimeoutStartSec= is over, and restart the service only then.
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
