"""The extra `asgi`: what is done without uvloop, and that pyproject.toml and messages name the same extra."""

import asyncio
import sys
import tomllib
from collections.abc import Callable
from contextlib import closing

import pytest
import uvloop

from sdserve.config import load
from sdserve.errors import BootError, ConfigError
from sdserve.log import Logger
from sdserve.workers.asgi.extra import INSTALL, NO_WEBSOCKETS, demand_loop, installed, later, new_event_loop
from tests.support.server import CHECKOUT

Log = Callable[[], str]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the extra is installed."""
    for package in ("uvloop", "websockets"):
        monkeypatch.setitem(sys.modules, package, None)


def loop_of(kind: str) -> type[asyncio.AbstractEventLoop]:
    with closing(new_event_loop(kind, Logger())) as loop:
        return type(loop)


@pytest.mark.parametrize("kind", ["auto", "uvloop"])
def test_uvloop_where_it_is_installed(kind: str) -> None:
    assert loop_of(kind) is uvloop.Loop
    demand_loop(load(["--asgi-loop", kind, "app:app"], {}))


def test_asyncios_loop_by_its_name() -> None:
    assert issubclass(loop_of("asyncio"), asyncio.SelectorEventLoop)


def test_asyncios_loop_where_there_is_no_other(bare: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert issubclass(loop_of("auto"), asyncio.SelectorEventLoop)
    [line] = capfd.readouterr().err.splitlines()
    assert "[INFO] asgi_loop: asyncio's loop, since uvloop is not installed" in line
    assert INSTALL in line
    assert issubclass(loop_of("asyncio"), asyncio.SelectorEventLoop)
    assert capfd.readouterr().err == ""
    demand_loop(load(["app:app"], {}))


def test_uvloop_by_its_name_where_it_is_missing(bare: None) -> None:
    with pytest.raises(
        BootError, match=r"asgi_loop = 'uvloop': uvloop is not installed: pip install 'sdserve\[asgi\]'"
    ):
        loop_of("uvloop")
    with pytest.raises(ConfigError, match=r"uvloop is not installed: pip install 'sdserve\[asgi\]'"):
        demand_loop(load(["--asgi-loop", "uvloop", "app:app"], {}))


def test_what_later_workers_need_is_what_this_one_has() -> None:
    assert later("auto") == later("uvloop") == ("sdserve.http.websocket", "uvloop")
    assert later("asyncio") == ("sdserve.http.websocket",)


def test_what_is_installed(bare: None) -> None:
    assert installed("asyncio")
    assert not installed("uvloop")


def test_the_extra_of_the_messages_has_what_they_miss() -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [requirement.partition(">")[0] for requirement in extras["asgi"]] == ["uvloop", "websockets"]
    assert "sdserve[asgi]" in INSTALL and "sdserve[asgi]" in extras["dev"]
    assert INSTALL in NO_WEBSOCKETS
