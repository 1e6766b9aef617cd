"""No greenlets in the place of threads: calls that would have gevent or eventlet patch are refused before they do.

Workers serve with threads and poll with epoll. What else is patched in one is its application's own matter: grequests
has sockets patched. A master forks, waits and polls by all of it, and goes on when a reload has failed, so nothing may
be patched there. What has not begun needs no undoing. Who only asks what is patched is answered as ever.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from functools import wraps
from types import BuiltinFunctionType

from sdserve.errors import BootError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

WITH_THREADS = "remove it, sdserve serves with threads"
IN_WORKERS = "the master forks, waits and polls by what this replaces; a worker accepts it, so without preload_app"
_THREADS = {"thread", "select", "selectors"}  # what of theirs leaves neither threads nor epoll
_OTHERS = "os", "signal", "socket", "subprocess", "time"  # modules, some of what a master needs besides


class GreenletsRefused(BootError):
    """Raised in the place of what would patch the standard library; the text says where it was called."""


def _by_gevent(function: Callable[..., Any], args: Collection[object], chosen: Mapping[str, object]) -> set[str]:
    """What a call of gevent's would patch of `_THREADS`: patch_all all that is not off, others what their names say."""
    if function.__name__ != "patch_all":
        return {function.__name__.removeprefix("patch_")} & _THREADS
    code = function.__code__
    given = {**dict(zip(code.co_varnames[: code.co_argcount], args, strict=False)), **chosen}
    return {each for each in ("thread", "select") if given.get(each, True)}


def _by_eventlet(function: Callable[..., Any], args: Collection[object], chosen: Mapping[str, object]) -> set[str]:
    """The same of eventlet's: what is on, or all that is not off where nothing is."""
    others = chosen.get("all")
    if others is None:
        others = True not in chosen.values()
    return {each for each in ("thread", "select") if chosen.get(each, others)}


# Modules that patch: what of them does, what a call means, and who says what has been patched.
_PATCHERS = {
    "gevent.monkey": (
        tuple(f"patch_{each}" for each in ("all", "dns", "queue", "ssl", *sorted(_THREADS), *_OTHERS)),
        *(_by_gevent, "is_module_patched"),
    ),
    "eventlet.patcher": (("monkey_patch",), _by_eventlet, "is_monkey_patched"),
}


def refuse(master: bool = False) -> None:
    """From now on, in this process: calls that would patch threads or select, and in a master any that would patch.

    What is forked from it has nothing to do with it until it says so itself.
    """
    _GUARD.pid, _GUARD.master = os.getpid(), master
    if _GUARD not in sys.meta_path:
        sys.meta_path.insert(0, _GUARD)
    for name in _PATCHERS:
        if name in sys.modules:
            _GUARD.tame(sys.modules[name])


def demand_none() -> None:
    """Raises GreenletsRefused where something is patched all the same."""
    if why := patched():
        raise GreenletsRefused(why)


def patched() -> str:
    """What is patched all the same, as one line; "" where nothing is. Nobody refused that: it was before sdserve's
    start (`python -m gevent.monkey`, sitecustomize), or done by other means. There is no way back from it.

    What is looked at nobody else replaces: debuggers and tracers have their own way of starting threads.
    """
    found = []
    select = sys.modules.get("select")
    if select is not None and not hasattr(select, "epoll"):
        found.append("select")
    if type(sys.modules["_thread"].get_ident) is not BuiltinFunctionType:
        found.append("threading")
    if _GUARD.master:
        found += [name for name in _OTHERS if _who_patched([name])]
    if not found:
        return ""
    what = f"{', '.join(found[:-1])} and {found[-1]} are" if found[1:] else f"{found[0]} is"
    whom = _who_patched([*found, "thread"]) or "something (gevent.monkey, eventlet)"
    return f"{what} patched by {whom}: {WITH_THREADS}"


def _who_patched(names: Collection[str]) -> str:
    """The module that says that it has patched one of these, if any."""
    for module, (_, _, says) in _PATCHERS.items():
        has_patched = getattr(sys.modules.get(module), says, None)
        if has_patched is not None and any(map(has_patched, names)):
            return module
    return ""


class _Guard:
    """Where calls are refused, and the finder on `sys.meta_path` that has the modules with these calls tamed."""

    pid = 0
    master = False

    def __init__(self) -> None:
        self._asking: set[int] = set()  # threads: others may ask all finders in their turn

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        thread = get_ident()
        if name not in _PATCHERS or thread in self._asking:
            return None
        self._asking.add(thread)
        try:
            spec = self._found(name, path, target)
        finally:
            self._asking.discard(thread)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec

    def _found(self, name: str, path: Any, target: Any) -> ModuleSpec | None:
        """What the finders behind this one know: those before it did not, or they are asking."""
        others = sys.meta_path
        for finder in others[others.index(self) + 1 :] if self in others else others:
            find = getattr(finder, "find_spec", None)  # before Python 3.12 there is an older way, which takes no part
            if find is not None and (spec := find(name, path, target)) is not None:
                found: ModuleSpec = spec
                return found
        return None

    def tame(self, module: ModuleType) -> None:
        """Puts calls that may be refused in the place of those that patch; once, however often this is asked for."""
        names, means, _ = _PATCHERS[module.__name__]
        package = sys.modules[module.__name__.partition(".")[0]]  # eventlet has it, too
        for name in names:
            function = getattr(module, name, None)
            if function is None or getattr(function, "__globals__", None) is globals():
                continue
            refusing = self._refusing(f"{module.__name__.removesuffix('.patcher')}.{name}()", function, means)
            for home in (module, package):
                if getattr(home, name, None) is function:
                    setattr(home, name, refusing)

    def _refusing(self, call: str, function: Callable[..., Any], means: Callable[..., set[str]]) -> Callable[..., Any]:
        @wraps(function)
        def patch(*args: Any, **chosen: Any) -> Any:
            if os.getpid() == self.pid and (why := self._why_not(means(function, args, chosen))):
                caller = sys._getframe(1)
                raise GreenletsRefused(f"{call} in {caller.f_code.co_filename}, line {caller.f_lineno}: {why}")
            return function(*args, **chosen)

        return patch

    def _why_not(self, threads: set[str]) -> str:
        return WITH_THREADS if threads else IN_WORKERS if self.master else ""


class _Loader:
    """A loader that has the module tamed once it has run, and leaves no other trace of itself."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _GUARD.tame(module)


_GUARD = _Guard()
