"""What a worker may need once it serves, imported while the disk still has it; see arbiter/preimport.py for the reason.

Workers find it in memory, since the master imports it too: all but the first one of a start, which was forked before.
That one does so when the master has heard that it serves. By then it has answered the client that woke the service.
"""

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module

MODULES = ("json", "traceback", "sdserve.access", "sdserve.http.proxy")


def preimport(more: Iterable[str] = ()) -> None:
    """Imports what is not there yet, and `more`."""
    for name in (*MODULES, *more):
        with suppress(ImportError):  # whatever needs it will say so
            import_module(name)
