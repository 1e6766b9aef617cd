"""What a worker may need of libraries once it serves; see arbiter/preimport.py for the reason.

Workers find it in memory, since the master imports it too: all but the first one of a start, which was forked before.
That one does so when the master has heard that it serves. By then it has answered the client that woke the service.
What it may need of sdserve it has when it serves: nothing of another version may come into a running process. The one
exception is what speaks to the library `websockets`: it is two fifths of what an ASGI service imports.

So what could not be imported is not tried again, neither here nor in a process that is forked from this one: by the
time that somebody installs it, the disk may have another version of us as well.
"""

import sys
from collections.abc import Iterable
from importlib import import_module

from sdserve.errors import NO_ROOM, in_words
from sdserve.process.foreign import error_of

MODULES = ["json", "tokenize", "traceback"]  # linecache asks for tokenize, since 3.13 late
if sys.version_info >= (3, 15):
    MODULES.append("_colorize")  # traceback does, when it first writes one

_missing: dict[str, str] = {}  # why what could not be imported


def preimport(more: Iterable[str] = ()) -> list[tuple[str, Exception]]:
    """Imports what is not there yet, and `more`. Returns what cannot be had, and was not known for that before.

    Foreign packages may raise whatever they like.
    """
    failed: list[tuple[str, Exception]] = []
    for name in (*MODULES, *more):
        if name not in _missing:
            try:
                _import(name)
            except Exception as error:  # noqa: BLE001 - whatever needs it will say so
                failed.append((name, error))
    return failed


def missing(name: str) -> str:
    """Why a module cannot be imported, here or where this process comes from; "" if it is there now.

    Raises what says nothing of the module: that there is no room.
    """
    if name not in _missing:
        try:
            _import(name)
        except Exception:
            if name not in _missing:
                raise
    return _missing.get(name, "")


def _import(name: str) -> None:
    try:
        import_module(name)
    except BaseException as raised:  # noqa: BLE001 - foreign packages may want to leave, too
        error = error_of(raised)
        if not isinstance(error, MemoryError) and not (isinstance(error, OSError) and error.errno in NO_ROOM):
            _missing[name] = in_words(error)
        raise error  # noqa: B904 - it knows its cause
