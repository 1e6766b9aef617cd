"""Names of worker classes: what each means, and what is said of those that mean none."""

import pytest

from sdserve.errors import ConfigError
from sdserve.workers.auto import AutoWorker
from sdserve.workers.base import Worker
from sdserve.workers.classes import resolve
from sdserve.workers.wsgi.worker import WSGIWorker


class Custom(Worker):
    """A worker class that somebody wrote."""


@pytest.mark.parametrize(
    "name", ["wsgi", "sync", "gthread", "gevent", "egg:gunicorn#sync", "sdserve.workers.wsgi.WSGIWorker"]
)
def test_ours(name: str) -> None:
    assert resolve(name) is WSGIWorker


def test_auto() -> None:
    assert resolve("auto") is AutoWorker


@pytest.mark.parametrize("name", [Custom, f"{__name__}.Custom", f"{__name__}:Custom"])
def test_a_custom_one(name: str | type) -> None:
    assert resolve(name) is Custom


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("uvicorn.workers.UvicornWorker", "has no counterpart in sdserve: it serves ASGI applications"),
        ("geventwebsocket.gunicorn.workers.GeventWebSocketWorker", "simple-websocket .* for WebSockets"),
        ("gunicorn.workers.base.Worker", "use worker_class = 'wsgi'"),
        ("wsgy", "is not known: use one of asgi, auto, "),
        ("no.such.Class", "cannot be imported: No module named 'no'"),
        (f"{__name__}.Nothing", "cannot be imported: module .* has no attribute 'Nothing'"),
        ("os.path", r"does not derive from sdserve\.workers\.base\.Worker"),
        (int, r"does not derive from sdserve\.workers\.base\.Worker"),
    ],
)
def test_what_is_none(name: str | type, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        resolve(name)
