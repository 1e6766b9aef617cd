"""The working directory and the import path that a configuration asks for.

Both belong to the process, so what was added is remembered here for the process: the directories of an earlier
configuration must not shadow, or stand in for, those of the present one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from sdserve.descriptor import Descriptor

_added: list[str] = []


def logical_cwd(environ: Mapping[str, str]) -> str:
    """The working directory as the user named it (PWD, pwd(1) -L): a symbolic link in it may be turned by a deploy."""
    named = environ.get("PWD", "")
    try:
        if named.startswith("/") and os.path.samefile(named, "."):
            return named
    except OSError:
        pass  # PWD names what is no longer there: the kernel's answer is the right one
    return os.getcwd()


def out_of_sight(path: str) -> str:
    """A hint for who may not look at `path`: a service sees nothing of homes where its unit has ProtectHome=."""
    try:
        os.stat(path)
    except PermissionError as error:
        home = any(path.startswith(f"{top}/") for top in ("/home", "/root", "/run/user"))
        if home and "INVOCATION_ID" in os.environ:
            return f": {error.strerror}; ProtectHome= of the unit hides homes"
        closed = barrier(path, lambda directory: os.access(directory, os.X_OK))
        return f": {error.strerror}" + (f": this user may not search {closed}" if closed else "")
    except OSError:
        pass  # what is not there needs no hint
    return ""


def barrier(path: str, is_open: Callable[[str], bool]) -> str:
    """The first directory on the way to `path`, an absolute one, that is not open; "" if all are."""
    way = ""
    for name in path.split("/")[1:-1]:
        way += f"/{name}"
        if not is_open(way):
            return way
    return ""


def open_to_all(directory: str) -> bool:
    """Whether users whom the directory does not know may search it. Raises OSError."""
    return bool(os.stat(directory).st_mode & 0o001)


def enter(directory: str, pythonpath: Sequence[str], *others: str) -> None:
    """Makes `directory` the working directory, and `pythonpath`, it and `others` the head of sys.path.

    Each call follows symbolic links again, and lets the import system see new files. Raises OSError.
    """
    os.chdir(directory)
    lead_imports([*pythonpath, directory, *others])
    _forget_directories()


def _forget_directories() -> None:
    """What importlib.invalidate_caches() does for files that came since; that one imports importlib.metadata first.

    From Python 3.12 on, that is: twenty milliseconds before the first answer, and it needs the disk at each reload.
    """
    for path, finder in list(sys.path_importer_cache.items()):
        if finder is None:
            del sys.path_importer_cache[path]
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()
    if (metadata := sys.modules.get("importlib.metadata")) is not None:
        metadata.MetadataPathFinder().invalidate_caches()  # of an object: in 3.11 it is no class method


class Place(Descriptor):
    """Working directory and import path of one moment, to come back to.

    The directory is held by a descriptor: it may be renamed, deleted, or reached by another path, and is still there.
    """

    def __init__(self) -> None:
        """Holds where this process is. Raises OSError when it is out of descriptors."""
        super().__init__(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        self._leading = leading()

    def enter(self) -> None:
        """Comes back. Raises OSError when the directory may not be searched any more."""
        lead_imports(self._leading)
        os.fchdir(self._fd)


def lead_imports(directories: Sequence[str]) -> None:
    """Makes `directories` the head of sys.path, in their order, instead of those of the call before."""
    for path in _added:
        if path in sys.path:
            sys.path.remove(path)
    _added[:] = [path for path in dict.fromkeys(directories) if path not in sys.path]
    sys.path[:0] = _added


def leading() -> list[str]:
    """The directories that `lead_imports` put on sys.path, to restore them by another call."""
    return list(_added)
