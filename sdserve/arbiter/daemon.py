"""Detaching from the terminal, for the machines where no supervisor does it (daemon(7), SysV daemons)."""

import os


def daemonize() -> None:
    """Goes on in a grandchild with a session of its own and its standard streams on /dev/null; the caller ends."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if null > 2:
        os.close(null)
