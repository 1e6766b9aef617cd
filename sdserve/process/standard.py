"""The standard descriptors 0, 1 and 2 are open: what a program may expect, and what no caller owes it."""

import os


def fill() -> None:
    """Opens /dev/null where a standard descriptor is closed, so that nothing else ever gets its number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(fd, True)
