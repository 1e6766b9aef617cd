"""Whose code failed or hangs, when an application cannot be loaded: its own last line, and a shortened traceback.

Between the application's frames lie those of the import system, and below its last one, as a rule, those of a library.
What the operator can mend is the application's own code, so that is named; the library's frames stay in the traceback.
"""

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType, TracebackType
from typing import TYPE_CHECKING

from sdserve.errors import SdserveError

if TYPE_CHECKING:
    from traceback import TracebackException

_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_STDLIB = os.path.dirname(os.__file__).removeprefix(sys.base_prefix)
_LIBRARY = tuple({prefix + _STDLIB + os.sep for prefix in (sys.base_prefix, sys.exec_prefix)})
DEEPEST = 1000  # coroutines that wait for each other

# Where it is, and what it waits for.
_PARTS: dict[type, tuple[str, str]] = {
    CoroutineType: ("cr_frame", "cr_await"),
    AsyncGeneratorType: ("ag_frame", "ag_await"),
    GeneratorType: ("gi_frame", "gi_yieldfrom"),
}
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def place(error: BaseException) -> str:
    """ " (FILE, line N)", as `raised`; or ""."""
    return in_brackets(raised(error))


def in_brackets(where: str) -> str:
    """To follow what happened there; "" where it is not known."""
    return f" ({where})" if where else ""


def raised(error: BaseException) -> str:
    """ "FILE, line N", the innermost place of the application's own code, or else of whose code there is; or ""."""
    found = list(_frames(error.__traceback__))
    own = [each for each in found if _is_own(each[0].f_code.co_filename)] or found
    return f"{own[-1][0].f_code.co_filename}, line {own[-1][1]}" if own else ""


def standing(frame: FrameType | None) -> str:
    """As `raised`, of code that we have called, and that runs."""
    found: list[FrameType] = []
    while frame is not None and not frame.f_code.co_filename.startswith(_OURS):
        found.insert(0, frame)
        frame = frame.f_back
    return _innermost(found)


def waiting(coro: object) -> str:
    """As `raised`, of a coroutine that waits, and of those that it waits for."""
    found: list[FrameType] = []
    for _ in range(DEEPEST):  # an object may wait for the one that waits for it
        if (names := _PARTS.get(type(coro))) is None:  # what awaits an asynchronous generator has no name for it
            coro = next((each for each in gc.get_referents(coro) if type(each) in _PARTS), None)
            continue
        frame, coro = (getattr(coro, name) for name in names)
        if frame is not None:
            found.append(frame)
    return _innermost(found)


def _innermost(frames: Iterable[FrameType]) -> str:
    found = [each for each in frames if not _is_on_the_way(each.f_code.co_filename)]
    own = [each for each in found if _is_own(each.f_code.co_filename)] or found
    return f"{own[-1].f_code.co_filename}, line {own[-1].f_lineno}" if own else ""


def importer(error: BaseException) -> str:
    """The module whose code was the last to run, other than the import system's; "" if there is none."""
    found = list(_frames(error.__traceback__))
    return str(found[-1][0].f_globals.get("__name__", "")) if found else ""


def account(error: SdserveError) -> str:
    """What to log of an application that cannot be loaded: its traceback; "" when its code did not even run."""
    cause = error.__cause__
    if cause is None or not (isinstance(cause, SyntaxError) or any(_frames(cause.__traceback__))):
        return ""
    told = traceback.TracebackException.from_exception(cause)
    _trim(told)
    return "".join(told.format()).rstrip()


def _frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        if not _is_on_the_way(trace.tb_frame.f_code.co_filename):
            yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _is_on_the_way(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", _OURS)) or filename == importlib.__file__


def _is_own(filename: str) -> bool:
    return not (filename.startswith(("<frozen", *_LIBRARY)) or any(each in filename for each in _INSTALLED))


def _trim(told: "TracebackException") -> None:
    told.stack[:] = [each for each in told.stack if not _is_on_the_way(each.filename)]
    for other in (told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())):
        if other is not None:
            _trim(other)
