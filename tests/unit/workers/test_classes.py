"""Names of worker classes: what each means, and what is said of those that mean none."""

import tomllib
from importlib.metadata import EntryPoint

import pytest

from sdserve.errors import ConfigError
from sdserve.workers.asgi.worker import ASGIWorker
from sdserve.workers.auto import NAMES, AutoWorker
from sdserve.workers.base import Worker
from sdserve.workers.classes import resolve
from sdserve.workers.wsgi.worker import WSGIWorker
from tests.support.server import CHECKOUT


class Custom(Worker):
    """A worker class that somebody wrote."""


class UvicornWorker:
    """uvicorn's, which derives from gunicorn's."""


class Own(UvicornWorker):
    """What many have, with CONFIG_KWARGS."""


@pytest.mark.parametrize(
    "name", ["wsgi", "sync", "gthread", "gevent", "egg:gunicorn#sync", "sdserve.workers.wsgi.WSGIWorker"]
)
def test_ours(name: str) -> None:
    assert resolve(name) is WSGIWorker


@pytest.mark.parametrize(
    "name", ["asgi", "uvicorn.workers.UvicornWorker", "egg:gunicorn#asgi", "sdserve.workers.asgi.ASGIWorker"]
)
def test_ours_for_asgi(name: str) -> None:
    assert resolve(name) is ASGIWorker


def test_auto() -> None:
    assert resolve("auto") is AutoWorker


@pytest.mark.parametrize("name", ["auto", *NAMES])
def test_each_is_an_entry_point_as_well(name: str) -> None:
    group = "sdserve.workers"
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["entry-points"][group]
    assert EntryPoint(name, declared[name], group).load() is resolve(name)


@pytest.mark.parametrize("name", [Custom, f"{__name__}.Custom", f"{__name__}:Custom"])
def test_a_custom_one(name: str | type) -> None:
    assert resolve(name) is Custom


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("hypercorn.Worker", "has no counterpart in sdserve: use worker_class = 'asgi'"),
        ("aiohttp.GunicornWebWorker", "neither ASGI nor WSGI"),
        (Own, "derives from uvicorn's: use worker_class = 'asgi', and sdserve's settings .* CONFIG_KWARGS"),
        ("geventwebsocket.gunicorn.workers.GeventWebSocketWorker", "simple-websocket .* for WebSockets"),
        ("gunicorn.workers.base.Worker", "use worker_class = 'wsgi'"),
        ("wsgy", "is not known: use one of asgi, auto, wsgi"),
        ("no.such.Class", "cannot be imported: No module named 'no'"),
        (f"{__name__}.Nothing", "cannot be imported: module .* has no attribute 'Nothing'"),
        ("os.path", r"does not derive from sdserve\.workers\.base\.Worker"),
        (int, r"does not derive from sdserve\.workers\.base\.Worker"),
    ],
)
def test_what_is_none(name: str | type, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        resolve(name)
