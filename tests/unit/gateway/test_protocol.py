"""Which protocol an application speaks, seen from outside, in all that people wrap their applications in."""

import asyncio
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Generator
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import asgiref.sync
import fastapi
import flask
import pytest
import starlette.applications
from hypothesis import given, settings
from hypothesis import strategies as st

from sdserve.errors import AppImportError
from sdserve.gateway.protocol import (
    ASGI,
    ASGI_2,
    ASGI_AWAITED,
    ASGI_BY_NAMES,
    ASGI_UNFIT,
    WSGI,
    Spoken,
    demand_asgi,
    demand_wsgi,
    spoken_by,
)

TO_ASGI_3 = "asgiref.compatibility.guarantee_single_callable"


async def coroutine(scope: Any, receive: Any, send: Any) -> None: ...


async def with_more(settings: Any, scope: Any, receive: Any, send: Any, *, name: str) -> None: ...


async def of_anything(*args: Any) -> None: ...


def plain(environ: Any, start_response: Any, *, option: int = 0) -> None: ...


def positional(*args: Any) -> None: ...


def returns_a_coroutine(scope: Any, receive: Any, send: Any) -> Any: ...


class Asynchronous:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...

    @classmethod
    async def of_class(cls, scope: Any, receive: Any, send: Any) -> None: ...

    @staticmethod
    async def of_none(scope: Any, receive: Any, send: Any) -> None: ...


class Framework(Asynchronous): ...


class Synchronous:
    def __call__(self, environ: Any, start_response: Any) -> None: ...


class CallsAnother:
    """Its instances say for themselves how they are called, as those of Sentry's middleware did."""

    __slots__ = ("__call__",)

    def __init__(self) -> None:
        self.__call__ = self.run

    async def run(self, scope: Any, receive: Any, send: Any) -> None: ...


class Awaited:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Generator[Any, Any, None]:
        yield


class Double:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class Hybrid:
    """Marked by asgiref, and by inspect from Python 3.12 on."""

    def __init__(self) -> None:
        asgiref.sync.markcoroutinefunction(self)

    def __call__(self, *args: Any) -> Any: ...


class Compiled:
    """A function as Cython compiles it: code without the flags of Python's, and a mark."""

    __code__ = returns_a_coroutine.__code__
    __defaults__ = __kwdefaults__ = None

    def __init__(self, mark: object) -> None:
        self._is_coroutine = mark

    def __call__(self, *args: Any) -> Any: ...


class SelfSame:
    """All that one asks it for is itself."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any) -> Any: ...


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def adapted(function: Callable[..., Any]) -> Callable[..., Any]:
    """An ASGI application for a server that speaks WSGI."""

    @functools.wraps(function)
    def wrapper(environ: Any, start_response: Any) -> Any: ...

    return wrapper


def double(scope: Any) -> Any: ...


DJANGO = """
import sys
from django.conf import settings
settings.configure(SECRET_KEY="x")
from django.core.{0} import get_{0}_application
from sdserve.gateway.protocol import spoken_by
print(spoken_by(get_{0}_application()).protocol)
"""


@pytest.mark.parametrize(
    "application",
    [
        *(coroutine, of_anything, Framework(), Asynchronous().method, Asynchronous.of_class, Asynchronous().of_none),
        *(partial(coroutine), partial(Framework()), partial(with_more, None, name="x"), partial(partial(coroutine))),
        *(decorated(coroutine), decorated(Framework()), partial(decorated(partial(decorated(coroutine))))),
        *(CallsAnother(), Hybrid(), asgiref.sync.sync_to_async(plain), functools.lru_cache(coroutine)),
        *(fastapi.FastAPI(), starlette.applications.Starlette(), partial(fastapi.FastAPI().__call__)),
        Compiled(getattr(asyncio.coroutines, "_is_coroutine", None)),
    ],
)
def test_asgi(application: Any) -> None:
    assert spoken_by(application) == ASGI


@pytest.mark.parametrize(
    "application",
    [
        *(plain, positional, partial(plain), partial(positional, 1), dict, print, Path("x").exists, lambda: plain),
        *(Synchronous(), Synchronous().__call__, Synchronous, decorated(plain), adapted(coroutine), SelfSame()),
        *(flask.Flask("x"), flask.Flask("x").wsgi_app, asgiref.sync.async_to_sync(coroutine)),
    ],
)
def test_wsgi(application: Any) -> None:
    assert spoken_by(application) == WSGI


@pytest.mark.parametrize(
    ("application", "spoken"),
    [
        *((each, ASGI_BY_NAMES) for each in (returns_a_coroutine, partial(returns_a_coroutine), Compiled(None))),
        *((each, ASGI_2) for each in (double, Double, partial(double))),
        (Awaited, ASGI_AWAITED),
    ],
)
def test_asgi_that_is_not_async(application: Any, spoken: Spoken) -> None:
    assert spoken_by(application) == spoken


@pytest.mark.parametrize(
    ("application", "wrong"),
    [
        (double, f"speaks ASGI 2, .*{TO_ASGI_3}"),
        (Framework, "is a class .*: name an instance of it"),
        (partial(coroutine, "scope"), "cannot be called with a scope, a receive and a send"),
        (partial(with_more, settings=None, name="x"), "cannot be called with"),
        (with_more, "cannot be called with"),
    ],
)
def test_asgi_that_cannot_be_served(application: Any, wrong: str) -> None:
    spoken = spoken_by(application)
    assert spoken.protocol == "asgi"
    assert re.search(wrong, spoken.wrong)


@pytest.mark.parametrize("protocol", ["asgi", "wsgi"])
def test_django(protocol: str) -> None:
    program = DJANGO.format(protocol)
    said = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said == f"{protocol}\n"


WRAPPINGS: list[Callable[[Any], Any]] = [
    partial,
    decorated,
    lambda inner: type("Instance", (), {"__call__": staticmethod(inner)})(),
    lambda inner: type("Held", (), {"inner": staticmethod(inner)})().inner,
    lambda inner: partial(functools.lru_cache(inner)),
]


@given(
    st.sampled_from([coroutine, plain, Framework(), Synchronous()]), st.lists(st.sampled_from(WRAPPINGS), max_size=6)
)
@settings(max_examples=200)
def test_wrapping_changes_nothing(application: Any, wrappings: list[Callable[[Any], Any]]) -> None:
    wrapped = application
    for wrap in wrappings:
        wrapped = wrap(wrapped)
    assert spoken_by(wrapped) == spoken_by(application)


@given(st.integers(0, 5), st.integers(0, 3), st.booleans(), st.integers(0, 3), st.integers(0, 4))
@settings(max_examples=300)
def test_it_is_unfit_when_a_call_would_fail(
    arguments: int, defaults: int, varargs: bool, given_before: int, first_named: int
) -> None:
    """Python's own word on whether an async function can be called with three arguments."""
    names = [f"a{i}" for i in range(arguments)]
    parameters = [f"{name}=None" if i >= arguments - defaults else name for i, name in enumerate(names)]
    space: dict[str, Any] = {}
    exec(f"async def application({', '.join([*parameters, *(['*more'] if varargs else [])])}): ...", space)
    named = dict.fromkeys(names[first_named : first_named + 1])
    application = partial(space["application"], *range(given_before), **named)
    try:
        application(1, 2, 3).close()
        called = True
    except TypeError:
        called = False
    assert (spoken_by(application) == ASGI) == called


@pytest.mark.parametrize(
    "application", [coroutine, Framework(), Asynchronous().method, partial(coroutine, "scope"), partial(Framework())]
)
def test_asgi_is_refused_by_wsgi_with_the_way_out(application: Any) -> None:
    with pytest.raises(AppImportError, match=r"^site:app is an async callable, so an ASGI .*leave worker_class out.*$"):
        demand_wsgi(application, "site:app")


@pytest.mark.parametrize("application", [plain, positional, Synchronous(), "".join])
def test_wsgi_is_refused_by_asgi_with_the_way_out(application: Any) -> None:
    with pytest.raises(AppImportError, match=r"^site:app is not an async .*, so a WSGI .*leave worker_class out.*$"):
        demand_asgi(application, "site:app")


@pytest.mark.parametrize("application", [double, Framework, with_more])
def test_asgi_that_cannot_be_served_is_refused_in_one_line(application: Any) -> None:
    with pytest.raises(AppImportError, match=r"^site:app (speaks|is) .*$"):
        demand_asgi(application, "site:app")


@pytest.mark.parametrize("application", [coroutine, Framework(), returns_a_coroutine, Awaited])
def test_asgi_is_served_by_asgi(application: Any) -> None:
    demand_asgi(application, "site:app")


@pytest.mark.parametrize("demand", [demand_wsgi, demand_asgi])
@pytest.mark.parametrize("factory", [lambda: dict, lambda config=None: dict, lambda *, config: dict])
def test_a_factory_that_is_not_called_is_refused_with_how_to_call_it(demand: Any, factory: Any) -> None:
    with pytest.raises(AppImportError, match=r"site:make cannot be called .* with parentheses, site:make\(\)"):
        demand(factory, "site:make")


class Makes:
    """Makes applications: not one of these can be called as one. The first is as bottle's `app`."""

    def __call__(self) -> Any: ...

    def make(self) -> Any: ...

    @classmethod
    def of_class(cls, config: Any = None) -> Any: ...

    @staticmethod
    def of_none(config: Any) -> Any: ...


@pytest.mark.parametrize("demand", [demand_wsgi, demand_asgi])
@pytest.mark.parametrize(
    "factory",
    [
        *(Makes(), Makes().make, Makes().__call__, Makes.of_class, partial(Makes.of_none, {}), partial(Makes().make)),
        *(partial(lambda config: dict, config={}), partial(partial(lambda a, b: dict, 1), b=2)),
    ],
)
def test_whatever_is_bound_a_factory_is_refused(demand: Any, factory: Any) -> None:
    with pytest.raises(AppImportError, match=r"site:make cannot be called .* with parentheses, site:make\(\)$"):
        demand(factory, "site:make")


class Handlers:
    """As tornado.web.Application: called with a request."""

    def __call__(self, request: Any) -> Any: ...


def positional_only(environ: Any, start_response: Any, /, **more: Any) -> Any: ...


def with_settings(environ: Any, start_response: Any, settings: Any, /) -> Any: ...


@pytest.mark.parametrize(
    "application",
    [
        *(partial(plain), partial(plain, option=1), partial(positional, 1), partial(decorated(lambda: dict))),
        *(partial(positional_only, environ="another"), functools.lru_cache(lambda: dict), partial(dict), "".join),
    ],
)
def test_what_may_fit_is_accepted(application: Any) -> None:
    demand_wsgi(application, "site:app")


@pytest.mark.parametrize("application", [partial(plain, start_response=None), Handlers().__call__, Path("x").rename])
def test_what_is_bound_and_takes_other_arguments_is_refused(application: Any) -> None:
    with pytest.raises(AppImportError, match=r"^site:app cannot be called with an environ .*: it takes others$"):
        demand_wsgi(application, "site:app")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="partial keeps no places free before 3.14")
def test_a_place_that_a_partial_keeps_free_is_no_argument_yet() -> None:
    free: Any = getattr(functools, "Placeholder", None)
    demand_wsgi(partial(with_settings, free, free, {}), "site:app")
    with pytest.raises(AppImportError):
        demand_wsgi(partial(with_settings, free, {}, {}), "site:app")


class Static:
    @staticmethod
    def __call__(environ: Any, start_response: Any) -> Any: ...


class OfClass:
    @classmethod
    def __call__(cls, environ: Any, start_response: Any) -> Any: ...


@pytest.mark.parametrize("application", [Static(), OfClass(), type("Of", (Static,), {})()])
def test_an_instance_that_is_called_without_itself_is_wsgi(application: Any) -> None:
    demand_wsgi(application, "site:app")


class Answer:
    """PEP 3333's own example: the class is the application, and its instances are what it answers."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


class ByIndex:
    def __new__(cls, *args: Any) -> Any:
        return super().__new__(cls)

    def __getitem__(self, index: int) -> bytes:
        raise IndexError


class MadeByItsMetaclass(type):
    def __call__(cls, environ: Any, start_response: Any) -> Any: ...


class Site:
    def __init__(self, name: str = "shop") -> None: ...

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class Middleware:
    def __init__(self, app: Any, level: int) -> None: ...

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class Needy:
    def __new__(cls, app: Any) -> Any: ...


@pytest.mark.parametrize(
    ("application", "said"),
    [
        (
            Site,
            r"a class that cannot be made with an environ .*: an instance is written with parentheses, site:App\(\)$",
        ),
        (Synchronous, r"a class that cannot be made with .*, site:App\(\)$"),
        (Needy, "a class that cannot be made with .*: name an instance of it$"),
        (Middleware, "a class that has instances that are not iterable, .*: name an instance of it$"),
        (flask.Flask, "a class that has instances that are not iterable, .*: name an instance of it$"),
    ],
)
def test_a_class_in_the_place_of_its_instance_is_refused(application: Any, said: str) -> None:
    with pytest.raises(AppImportError, match=f"^site:App is {said}"):
        demand_wsgi(application, "site:App")


class AnswersByItself(type):
    async def __call__(cls, scope: Any, receive: Any, send: Any) -> None: ...


class TakesNoMore(type):
    async def __call__(cls, scope: Any) -> None: ...


class OneForAll(type):
    """A singleton, as many write it."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any: ...


def test_a_class_that_its_metaclass_calls_is_judged_by_that() -> None:
    assert spoken_by(AnswersByItself("Made", (), {})) == ASGI
    assert spoken_by(AnswersByItself("Made", (Synchronous,), {})) == ASGI
    assert spoken_by(TakesNoMore("Made", (), {})) == ASGI_UNFIT
    assert spoken_by(MadeByItsMetaclass("Made", (Asynchronous,), {})) == WSGI
    assert spoken_by(OneForAll("Made", (Asynchronous,), {})) == spoken_by(Asynchronous)


@pytest.mark.parametrize("application", [Answer, ByIndex, MadeByItsMetaclass("Made", (), {}), dict, map])
def test_a_class_whose_instances_are_answers_is_wsgi(application: Any) -> None:
    demand_wsgi(application, "site:app")


@pytest.mark.parametrize("application", [plain, positional, partial(positional), dict, "".join, Synchronous().__call__])
def test_whatever_else_can_be_called_may_be_wsgi(application: Any) -> None:
    demand_wsgi(application, "site:app")


class Proxy:
    """As wrapt's: it says that it is what it is around, and calls that in a way of its own."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    __class__ = property(lambda self: type(self.wrapped))
    __code__ = property(lambda self: self.wrapped.__code__)
    __call__ = partialmethod(lambda self, *args: self.wrapped("request"))


class Constructs:
    """Its constructor answers; what it needs for that it is given there."""

    def __new__(cls, environ: Any, start_response: Any) -> Any:
        return [b""]

    def __init__(self, database: Any, name: Any, port: Any) -> None: ...


def test_what_its_own_call_adapts_is_wsgi() -> None:
    for application in (Proxy(lambda request: [b""]), Constructs):
        demand_wsgi(application, "site:app")


def test_an_instance_that_no_call_fits_is_refused() -> None:
    with pytest.raises(AppImportError, match=r"^site:app cannot be called with an environ .*: it is .*\.Handlers$"):
        demand_wsgi(Handlers(), "site:app")


def test_a_look_imports_nothing() -> None:
    program = "import sys; from sdserve.gateway.protocol import spoken_by; spoken_by(print); print(*sys.modules)"
    said = subprocess.run([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert not {"inspect", "asyncio", "asgiref", "typing_extensions"} & set(said.split())
