"""Which protocol an application speaks, WSGI or ASGI, by a look at what it is; nothing of it is called.

An ASGI application is an async callable of three arguments, whatever it is wrapped in: a function, a bound method, an
instance with an async `__call__`, a partial of one, a proxy or a decorated one that leads to it by `__wrapped__`. All
else is WSGI. Code flags and marks are read here as inspect.iscoroutinefunction reads them: importing inspect costs more
than a worker's start has to spare, and where nobody has imported it, nothing bears its mark.
"""

import functools
import sys
from functools import partial
from types import CodeType, FunctionType, MethodType, WrapperDescriptorType
from typing import Any

from sdserve import greenlets
from sdserve.errors import AppImportError
from sdserve.immutable import Immutable

CO_VARARGS = 0x04  # inspect's flags of functions: one that takes `*args`,
CO_COROUTINE = 0x80  # and one made by `async def`

# What inspect, asgiref and Cython mark a callable with that returns a coroutine, and where that mark is from.
MARKS = (
    ("_is_coroutine_marker", "inspect", "_is_coroutine_mark"),
    ("_is_coroutine_marker", "inspect", "_is_coroutine_marker"),  # the first ones of 3.12
    ("_is_coroutine", "asyncio.coroutines", "_is_coroutine"),
)
FREE = getattr(functools, "Placeholder", object())  # what a partial keeps free for the call, since Python 3.14
DEPTH = 20  # of what wraps an application: more is a circle

TO_ASGI_3 = "wrap it: application = asgiref.compatibility.guarantee_single_callable(application)"


class Spoken(Immutable):
    """A protocol ("asgi" or "wsgi"), how one sees it, and what is wrong with the application, as ends of sentences that
    begin with its name."""

    protocol: str
    why: str
    wrong: str = ""


WSGI = Spoken("wsgi", "is not an async callable")
ASGI = Spoken("asgi", "is an async callable")
ASGI_BY_NAMES = Spoken("asgi", "takes scope, receive and send")
ASGI_2 = Spoken("asgi", "takes a scope alone", f"speaks ASGI 2, which sdserve does not: {TO_ASGI_3}")
ASGI_CLASS = Spoken("asgi", "is a class", "is a class whose instances are ASGI applications: name an instance of it")
ASGI_AWAITED = Spoken("asgi", "is a class whose instances are awaited")
ASGI_UNFIT = Spoken(
    *("asgi", ASGI.why),
    "is async, and cannot be called with a scope, a receive and a send, as ASGI applications are (an async"
    " factory is not awaited here)",
)


def spoken_by(application: Any, depth: int = DEPTH) -> Spoken:
    """What an application speaks."""
    call = _Call(application)
    if isinstance(call.function, type):
        return _of_class(call.function)
    if call.is_async:
        return ASGI if call.takes(3) is not False else ASGI_UNFIT
    if call.first_is_scope():
        return ASGI_BY_NAMES if call.takes(3) else ASGI_2 if call.takes(1) else WSGI
    # Whether it takes what WSGI passes says its own code; a wrapper that takes anything is what it wraps.
    if call.wrapped is not None and (call.takes(2) is None or call.takes(3)) and depth:
        return spoken_by(call.wrapped, depth - 1)
    return WSGI


def demand_threads(uri: str) -> None:
    """Raises AppImportError where loading an application has replaced threads by greenlets, unnoticed."""
    if why := greenlets.patched():
        raise AppImportError(f"{uri}: {why}")


def demand_wsgi(application: Any, uri: str) -> None:
    """Raises AppImportError for what speaks ASGI, or is a factory: each request would be answered with 500."""
    demand_threads(uri)
    spoken = spoken_by(application)
    if spoken.protocol != "wsgi":
        raise AppImportError(
            f"{uri} {spoken.why}, so an ASGI application, which worker_class = 'wsgi' does not serve: leave"
            " worker_class out, or name the WSGI callable where there is one (Django: wsgi.py)"
        )
    _demand_no_factory(application, uri, "an environ and a start_response, as WSGI")
    _demand_no_class_of_applications(application, uri)


def demand_asgi(application: Any, uri: str) -> None:
    """Raises AppImportError for what speaks WSGI, or an ASGI that cannot be served."""
    demand_threads(uri)
    spoken = spoken_by(application)
    if spoken.wrong:
        raise AppImportError(f"{uri} {spoken.wrong}")
    if spoken.protocol != "asgi":
        _demand_no_factory(application, uri, "a scope, a receive and a send, as ASGI")
        raise AppImportError(
            f"{uri} {spoken.why}, so a WSGI application, which worker_class = 'asgi' does not serve: leave"
            " worker_class out, or name the ASGI callable where there is one (Django: asgi.py)"
        )


def _demand_no_factory(application: Any, uri: str, arguments: str) -> None:
    """Looks at what it is itself: a proxy passes itself off as what it is around, and calls that otherwise."""
    called = type(application)
    call = next((vars(each)["__call__"] for each in called.__mro__ if "__call__" in vars(each)), None)  # not yet bound
    if type(call) is FunctionType:
        itself, what = _Call(call, more=1), f"it is an instance of {called.__module__}.{called.__qualname__}"
    elif type(_bound(application)) is FunctionType:
        itself, what = _Call(application), "it takes others"
    else:
        return  # C code or a proxy: only the call would tell
    if itself.takes(2) is not False:
        return
    if called is FunctionType or itself.takes(0):
        what = f"a factory is written with parentheses, {_with_parentheses(uri)}"
    raise AppImportError(f"{uri} cannot be called with {arguments} applications are: {what}")


def _bound(application: Any) -> Any:
    """What a partial or a bound method calls; anything else is that itself."""
    for _ in range(DEPTH):
        if type(application) is partial:
            application = application.func
        elif type(application) is MethodType:
            application = application.__func__
        else:
            break
    return application


def _demand_no_class_of_applications(application: Any, uri: str) -> None:
    """A class is an application if its instances are answers: made with an environ and a start_response, and iterable
    (PEP 3333). Where C code or a metaclass makes them, only the call would tell."""
    if not isinstance(application, type) or type(application).__call__ is not type.__call__:
        return
    if _made_with(application, 2) is False:
        wrong = "cannot be made with an environ and a start_response, as WSGI applications are called"
    elif not (_has_constructor(application) or _is_iterable(application)):
        wrong = "has instances that are not iterable, as answers of WSGI applications are"
    else:
        return
    how = "name an instance of it"
    if _made_with(application, 0):
        how = f"an instance is written with parentheses, {_with_parentheses(uri)}"
    raise AppImportError(f"{uri} is a class that {wrong}: {how}")


def _made_with(found: Any, count: int) -> bool | None:
    """Whether a class can be called with so many arguments by position; None where only the call would tell."""
    if found.__init__ is object.__init__ and found.__new__ is object.__new__:
        return count == 0
    # What a `__new__` of its own makes need be no instance, and `__init__` is called for those alone.
    return _Call(found.__new__ if _has_constructor(found) else found.__init__, more=1).takes(count)


def _has_constructor(found: Any) -> bool:
    """Whether a class may make what is no instance of it."""
    return found.__new__ is not object.__new__


def _is_iterable(found: type) -> bool:
    return hasattr(found, "__iter__") or hasattr(found, "__getitem__")


def _with_parentheses(uri: str) -> str:
    module, _, name = uri.partition(":")
    return f"{module}:{name or 'application'}()"


def is_factory(found: Any) -> bool:
    """Whether a function is no application, and makes one when it is called without arguments, by the looks of it."""
    call = _Call(found)
    return (
        isinstance(found, FunctionType)
        and spoken_by(found).protocol == "wsgi"
        and not call.takes(2)
        and bool(call.takes(0))
    )


def _of_class(found: type) -> Spoken:
    """A class that an application names: its instances are made with what an application is called with."""
    if hasattr(found, "__await__"):
        return ASGI_AWAITED
    if type(found).__call__ is not type.__call__:  # its metaclass's own: that is called
        call = _Call(type(found).__call__, more=1)
        if call.is_async:
            return ASGI if call.takes(3) is not False else ASGI_UNFIT
        if call.takes(2) and not call.takes(3):
            return WSGI
    made = _Call(getattr(found, "__init__", None), more=1)
    if made.first_is_scope() and made.takes(1):
        return ASGI_2
    return ASGI_CLASS if _Call(getattr(found, "__call__", None), more=1).is_async else WSGI  # noqa: B004


class _Call:
    """A callable without its wrapping.

    function: what has code at last, a class, or None where there is only C code.
    given, named: how many arguments the wrapping adds by position, and which ones by name.
    wrapped: what a decorator says that it is around.
    """

    def __init__(self, application: Any, more: int = 0) -> None:
        self.function: Any = application
        self.given = more
        self.named: frozenset[str] = frozenset()
        self.is_async = False
        self.wrapped: Any = None
        for _ in range(DEPTH):
            found = self.function
            self.is_async = self.is_async or _is_marked(found)
            if isinstance(found, type):
                break
            if self.wrapped is None:
                self.wrapped = getattr(found, "__wrapped__", None)
            if isinstance(found, partial):
                self.given += sum(each is not FREE for each in found.args)
                self.named |= found.keywords.keys()
                self.function = found.func
            elif isinstance(found, MethodType):
                self.given += 1
                self.function = found.__func__
            elif (code := _code_of(found)) is not None:
                self.is_async = self.is_async or bool(code.co_flags & CO_COROUTINE)
                break
            elif isinstance(getattr(type(found), "__call__", None), WrapperDescriptorType | None):  # noqa: B004
                self.function = None
                break
            else:
                self.function = found.__call__

    def takes(self, count: int) -> bool | None:
        """Whether it can be called with so many arguments by position; None where only the call would tell."""
        code = _code_of(self.function)
        if code is None:
            return None
        count += self.given
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        by_position, by_name = names[: code.co_argcount], names[code.co_argcount :]
        if count > len(by_position) and not code.co_flags & CO_VARARGS:
            return False
        defaults = self.function.__defaults__ or ()
        needed = {*by_position[: len(by_position) - len(defaults)], *by_name} - {*(self.function.__kwdefaults__ or ())}
        given, named = set(by_position[:count]), self.named.difference(by_position[: code.co_posonlyargcount])
        return needed <= given | named and given.isdisjoint(named)

    def first_is_scope(self) -> bool:
        """Whether its first argument is called scope."""
        code = _code_of(self.function)
        return code is not None and code.co_varnames[self.given : min(self.given + 1, code.co_argcount)] == ("scope",)


def _code_of(found: Any) -> CodeType | None:
    code = getattr(found, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _is_marked(found: Any) -> bool:
    """Whether a callable bears the mark of those that return coroutines."""
    for attribute, module, mark in MARKS:
        home = sys.modules.get(module)
        if home is not None and getattr(found, attribute, None) is getattr(home, mark, home):
            return True
    return False
