"""No greenlets in the place of threads: what gevent and eventlet patch is refused before they touch anything.

Nothing can be served by threads that are none, nor polled where `select` has no epoll. In a worker nothing else is
refused: some packages have gevent patch sockets for themselves. A master forks, waits and polls by whatever else they
patch, and goes on when a reload has failed: while it runs a config file or imports an application, all is refused.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import wraps
from types import BuiltinFunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

ADVICE = "remove it, sdserve serves with threads"
_THREADS = {"thread", "select", "selectors"}  # features of theirs that take threads and epoll away


class GreenletsRefused(RuntimeError):
    """Raised in the place of a call that would patch the standard library; the message says which one."""


def _by_gevent(function: Callable[..., Any], args: tuple[object, ...], chosen: dict[str, object]) -> set[str]:
    """What a call patches that makes greenlets of threads: patch_all all but what is off, others what they are named
    after."""
    if function.__name__ != "patch_all":
        return {function.__name__.removeprefix("patch_")} & _THREADS
    code = function.__code__
    chosen = dict(zip(code.co_varnames[: code.co_argcount], args, strict=False)) | chosen
    return {each for each in _THREADS if chosen.get(each, True) and each != "selectors"}


def _by_eventlet(function: Callable[..., Any], args: tuple[object, ...], chosen: dict[str, object]) -> set[str]:
    """The same of eventlet.monkey_patch: what is chosen, or else all but what is not."""
    others = chosen.get("all")
    if others is None:
        others = True not in chosen.values()
    return {each for each in _THREADS if chosen.get(each, others)}


_GEVENTS = "all", "os", "queue", "select", "selectors", "signal", "socket", "ssl", "subprocess", "thread", "time"
# Modules, what of them patches, and how one sees what.
_PATCHERS = {
    "gevent.monkey": (tuple(f"patch_{each}" for each in _GEVENTS), _by_gevent),
    "eventlet.patcher": (("monkey_patch",), _by_eventlet),
}
_masters = [False]  # whether a master runs what may patch nothing at all


@contextmanager
def in_master() -> Iterator[None]:
    """While a master runs foreign code."""
    watch()
    _masters.append(True)
    try:
        yield
    finally:
        _masters.pop()


class _Finder:
    """Has whoever imports what patches get it as it is, but for the calls that patch."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _PATCHERS:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                if spec.loader is not None:
                    self._tame(spec.loader)
                return spec
        return None

    def _tame(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _guard(module)

        loader.exec_module = exec_module


_FINDER = _Finder()


def watch() -> None:
    """From now on calls that patch are refused, here and in children of this process."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
        for name in _PATCHERS:
            if name in sys.modules:
                _guard(sys.modules[name])


def _guard(module: ModuleType) -> None:
    names, threads = _PATCHERS[module.__name__]
    for name in names:
        function = getattr(module, name, None)
        if function is not None:
            setattr(module, name, _refusing(f"{module.__name__}.{name}", function, threads))


def _refusing(name: str, function: Callable[..., Any], threads: Callable[..., set[str]]) -> Callable[..., Any]:
    called = f"{name.replace('.patcher', '')}()"

    @wraps(function)
    def patch(*args: Any, **chosen: Any) -> Any:
        if threads(function, args, chosen):
            raise GreenletsRefused(f"{called}: {ADVICE}")
        if _masters[-1]:
            raise GreenletsRefused(f"{called} would patch the master: remove it, or let workers import it")
        return function(*args, **chosen)

    return patch


def patched() -> str:
    """What is patched all the same, as one line; "" where nothing is: before sdserve was started, or in another way.

    What is looked at here nobody else replaces: debuggers, tracers and proxies have their own way of starting threads.
    """
    select, threads = sys.modules.get("select"), sys.modules["_thread"]
    found = ["select"] if select is not None and not hasattr(select, "epoll") else []
    if type(threads.get_ident) is not BuiltinFunctionType:
        found.append("threading")
    if not found:
        return ""
    what = " and ".join(found)
    return f"{what} {'are' if found[1:] else 'is'} patched by something (gevent.monkey, eventlet): {ADVICE}"
