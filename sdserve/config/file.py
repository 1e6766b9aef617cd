"""The config file: a Python file or module, executed afresh at each load.

It is run as gunicorn runs it: as a module `__config__` whose variables are the settings, in the directory sdserve was
started in, which is on the import path. A file is compiled from its source each time, never taken from a bytecode
cache: that goes by the second, and two reloads may come within one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from sdserve.config import gunicorn
from sdserve.config.paths import out_of_sight
from sdserve.config.setting import Given, Setting, Source
from sdserve.errors import Interruption, SdserveError
from sdserve.immutable import Immutable

# Modules that config files import from gunicorn's world, and what to do where they are not installed.
_GUNICORNS = {
    "gunicorn": "install gunicorn beside sdserve (nothing of it runs), or remove the import",
    **dict.fromkeys(("gevent", "eventlet"), "sdserve serves with threads: remove the import and its monkey patching"),
}
DEFAULT_FILES = ("sdserve.conf.py", "gunicorn.conf.py")
MODULE_NAME = "__config__"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


class _Unreadable(Exception):
    """A file that could not be run to its end; the text is the whole problem line."""


def default_location(directory: str) -> str:
    """The config file that is read when none is named, "" if there is none."""
    return next(filter(os.path.exists, (os.path.join(directory, name) for name in DEFAULT_FILES)), "")


def read(location: str, directory: str, settings: Mapping[str, Setting]) -> Source:
    """Runs the file at `location` (PATH, file:PATH or python:MODULE) and sorts its variables.

    Relative paths start at `directory`. Raises nothing for what is wrong with the file: that is reported in `problems`.
    """
    contents = Source()
    try:
        path, source, names = _run(location, directory)
    except _Unreadable as exc:
        contents.problems.append(str(exc))
        contents.cause = exc.__cause__
        return contents
    here = _Locator(path, source)
    for name, value in names.items():
        # None is how a file says that it leaves a setting alone.
        if name in settings and settings[name].in_file and value is not None:
            contents.given[name] = Given(value, here, f"file {path}")
    unknown = {name: value for name, value in names.items() if _may_be_misread(name, value, settings)}
    if unknown:
        from sdserve.config.unknown_names import Usage, judge

        judge(unknown, path, Usage(source), settings, contents)
    return contents


def _may_be_misread(name: str, value: object, settings: Mapping[str, Setting]) -> bool:
    """A quick look: whether the name has to be judged by how the file uses it."""
    if isinstance(value, type(sys)):
        return False
    if gunicorn.is_foreign(name):
        return not gunicorn.asks_for_nothing(name, value)
    return name not in settings and not name.startswith("_") and name == name.lower()


class _Locator(Immutable):
    """Names the place of a file's setting in problems, with its line; the file is parsed only when there are any."""

    path: str
    source: bytes

    def __call__(self, name: str) -> str:
        from sdserve.config.unknown_names import Usage

        line = Usage(self.source).line(name)
        return f"{self.path}:{line}: {name}" if line else f"{self.path}: {name}"


def _run(location: str, directory: str) -> tuple[str, bytes, dict[str, object]]:
    """(path or module name, source, variables) of a config file. Raises _Unreadable."""
    if location.startswith("python:"):
        return _run_module(location.removeprefix("python:"))
    path = os.path.normpath(os.path.join(directory, location.removeprefix("file:")))
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as exc:
        raise _Unreadable(f"the config file {path} cannot be read{out_of_sight(path) or f': {exc.strerror}'}") from exc
    module = type(sys)(MODULE_NAME)
    module.__file__ = path
    return path, source, _execute(module, source, path)


def _run_module(name: str) -> tuple[str, bytes, dict[str, object]]:
    """Runs an importable module from its source, also when it was imported before."""
    import importlib.util

    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as exc:
        raise _Unreadable(f"the config module python:{name} cannot be found: {exc}") from exc
    if spec is None or spec.loader is None:
        raise _Unreadable(f"the config module python:{name} cannot be found: check --chdir, --pythonpath and the name")
    path = spec.origin or name
    read_source = getattr(spec.loader, "get_data", None)
    if not path.endswith(".py") or read_source is None:
        raise _Unreadable(f"the config module python:{name} has no Python source: {path}")
    source = read_source(path)
    return path, source, _execute(importlib.util.module_from_spec(spec), source, path)


def _execute(module: ModuleType, source: bytes, path: str) -> dict[str, object]:
    """The variables after running `source` as `module`, which stays importable by its name if all went well."""
    name = module.__name__
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except BaseException as exc:
        if before is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = before
        if isinstance(exc, Interruption):
            raise
        raise _Unreadable(_explain(exc, path)) from exc
    return dict(vars(module))


def _explain(exc: BaseException, path: str) -> str:
    """One line for an exception of a config file: file, line, what."""
    detail = " ".join(f"{type(exc).__name__}: {exc}".split()).removesuffix(":")
    if isinstance(exc, SyntaxError) and exc.filename == path:
        return f"{path}:{exc.lineno}: syntax error: {exc.msg}: {(exc.text or '').strip()}".rstrip(": ")
    where, traceback = path, exc.__traceback__
    while traceback is not None:  # the line of the file where the exception went through last
        if traceback.tb_frame.f_code.co_filename == path:
            where = f"{path}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    if isinstance(exc, ModuleNotFoundError) and exc.name and (way := _GUNICORNS.get(exc.name.partition(".")[0])):
        detail = f"{detail}: {way}"
    if isinstance(exc, SdserveError):
        return f"{where}: {exc}"
    return f"{where}: the config file raised {detail}"
