"""What a worker may need of libraries once it serves; see arbiter/preimport.py for the reason.

Workers find it in memory, since the master imports it too: all but the first one of a start, which was forked before.
That one does so when the master has heard that it serves. By then it has answered the client that woke the service.
What it may need of sdserve it has when it serves: nothing of another version may come into a running process. The one
exception is what speaks to the library `websockets`: it is two fifths of what an ASGI service imports.
"""

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module

MODULES = ("json", "tokenize", "traceback")  # linecache asks for tokenize, since 3.13 late


def preimport(more: Iterable[str] = ()) -> None:
    """Imports what is not there yet, and `more`."""
    for name in (*MODULES, *more):
        with suppress(ImportError):  # whatever needs it will say so
            import_module(name)
