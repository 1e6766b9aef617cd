"""Whether the standard library is itself: gevent and eventlet patch it, to have greenlets in the place of threads.

Nothing can be served by threads that are none, nor polled where `select` has no epoll. What is looked at here nobody
else replaces: debuggers, tracers and proxies have their own way of starting threads, or of opening sockets.
"""

from __future__ import annotations

import os
import sys
from types import BuiltinFunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What they patch, and sdserve or its master needs.
_MODULES = (
    *("_thread", "logging", "os", "queue", "select", "selectors", "signal", "socket", "ssl", "subprocess"),
    *("threading", "time"),
)
# Who says of itself what it has patched: its module, the function that says so, and what is to be removed.
_PATCHERS = (
    ("gevent.monkey", "is_module_patched", "gevent.monkey.patch_all()"),
    ("eventlet.patcher", "is_monkey_patched", "eventlet.monkey_patch()"),
)
_PACKAGES = ("gevent", "eventlet")
_NAMES = ("select", "threading", "thread", "socket")  # of modules, to them


def patched() -> str:
    """What is patched, by what, and what to do, as one line; "" where nothing is."""
    found = [name for name, is_itself in _LOOKS if not is_itself()]
    if not found:
        return ""
    what = f"{', '.join(found[:-1])} and {found[-1]} are" if found[1:] else f"{found[0]} is"
    return f"{what} patched by {_by_whom()}: remove it, sdserve serves with threads"


class Trial:
    """While foreign code runs in a process that goes on without it, should it patch the standard library.

    Inside of a `with`; `undo` takes the standard library back to what it was at the beginning. What raises is undone.
    """

    def __enter__(self) -> Trial:
        self._before = {name: dict(vars(sys.modules[name])) for name in _MODULES if name in sys.modules}
        threading = sys.modules.get("threading")
        held = [vars(threading.main_thread()), threading._active] if threading else []
        self._contents = [(each, dict(each)) for each in held]
        found = [ref() for ref in getattr(sys.modules.get("logging"), "_handlerList", ())]
        self._locks = [(handler, handler.lock) for handler in found if handler is not None]
        self._undone = False
        self._register = os.register_at_fork
        os.register_at_fork = self._register_at_fork  # type: ignore[assignment]
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        os.register_at_fork = self._register
        if kind is not None and patched():
            self.undo()

    def undo(self) -> None:
        self._undone = True
        for name in _MODULES:
            if name in self._before:
                _refill(vars(sys.modules[name]), self._before[name])
            else:
                sys.modules.pop(name, None)  # whoever needs it imports one that is itself
        for each, content in self._contents:
            _refill(each, content)
        for handler, lock in self._locks:
            handler.lock = lock

    def _register_at_fork(self, **callbacks: Callable[[], object]) -> None:
        """os.register_at_fork, which nothing undoes: what greenlets have for their forks must not run in ours."""

        def of_greenlets(callback: Callable[[], object]) -> Callable[[], object]:
            return lambda: None if self._undone else callback()

        theirs = {name for name, each in callbacks.items() if _home(each) in _PACKAGES}
        self._register(**{name: of_greenlets(each) if name in theirs else each for name, each in callbacks.items()})


def _refill(names: dict[Any, Any], before: dict[Any, Any]) -> None:
    names.clear()
    names.update(before)


def _home(found: object) -> str:
    """The package that a class or function is of."""
    return str(getattr(found, "__module__", "")).partition(".")[0]


def _select() -> bool:
    return hasattr(sys.modules.get("select"), "epoll") or "select" not in sys.modules


def _threading() -> bool:
    return type(sys.modules["_thread"].get_ident) is BuiltinFunctionType


def _socket() -> bool:
    kind = getattr(sys.modules.get("socket"), "socket", None)
    return _home(kind) not in _PACKAGES


_LOOKS = (("select", _select), ("threading", _threading), ("socket", _socket))


def _by_whom() -> str:
    for module, says, call in _PATCHERS:
        is_patched = getattr(sys.modules.get(module), says, None)
        if is_patched is not None and any(map(is_patched, _NAMES)):
            return call
    return "something (gevent.monkey, eventlet)"
