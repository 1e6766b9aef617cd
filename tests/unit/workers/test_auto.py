"""A worker of the class `auto` becomes one of the class that serves its application."""

import os
from typing import Any

import pytest

from sdserve.config import load
from sdserve.log import Logger
from sdserve.workers.application import Application
from sdserve.workers.auto import NAMES, AutoWorker, class_of
from sdserve.workers.base import Worker
from sdserve.workers.http.worker import HTTPWorker


def plain(environ: Any, start_response: Any) -> None: ...


async def coroutine(scope: Any, receive: Any, send: Any) -> None: ...


def made() -> AutoWorker:
    cfg = load(["app:app"], {})
    return AutoWorker(1, os.getppid(), [], Application("app:app"), cfg.timeout, cfg, Logger())


@pytest.mark.parametrize("name", NAMES)
def test_it_becomes_what_serves(name: str) -> None:
    worker = made()
    before = dict(vars(worker))
    worker.become(f"{name} (because of this or that)")
    assert type(worker) is class_of(name)
    assert vars(worker) == before


@pytest.mark.parametrize("name", NAMES)
def test_those_that_it_becomes_can_do_without_an_init_of_their_own(name: str) -> None:
    assert issubclass(class_of(name), HTTPWorker)
    assert class_of(name).__init__ is Worker.__init__
    assert class_of(name).init_signals is Worker.init_signals  # called before the application is loaded


def test_what_is_decided_has_its_reason() -> None:
    assert AutoWorker.decide(plain, "app:app") == (class_of("wsgi"), "wsgi (app:app is not an async callable)")
    assert AutoWorker.decide(coroutine, "app:app") == (class_of("asgi"), "asgi (app:app is an async callable)")


def test_others_have_decided_before() -> None:
    worker_class = class_of("wsgi")
    assert not worker_class.undecided
    assert worker_class.decide(plain, "app:app")[0] is worker_class


@pytest.mark.parametrize("using", ["", "nothing", "os.system (x)"])
def test_no_other_class_is_to_be_had(using: str) -> None:
    worker = made()
    with pytest.raises(KeyError):
        worker.become(using)
    assert type(worker) is AutoWorker
