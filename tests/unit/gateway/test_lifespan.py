"""What becomes of a worker by what an application makes of lifespan: nothing of it waits for a server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sdserve.errors import BootError
from sdserve.gateway.lifespan import Lifespan, in_one_line
from sdserve.log import Logger

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[Any]]


def answers(*said: str, **more: str) -> Application:
    """An application that answers each event with the next of `said`, and returns."""

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert sorted(scope) == ["asgi", "state", "type"] and scope["type"] == "lifespan"
        scope["state"]["pool"] = "open"
        for each in said:
            await receive()
            await send({"type": each, **more})

    return application


async def raises(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    raise KeyError("scope")


async def returns(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    pass


async def asks_for_more(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.Event().wait()


async def ends_badly(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise OSError("no database")


BOTH = ("lifespan.startup.complete", "lifespan.shutdown.complete")
FAILS = ("lifespan.startup.complete", "lifespan.shutdown.failed")


def lived(application: Application, mode: str, seconds: float = 20) -> Lifespan:
    """From startup to shutdown."""

    async def live() -> Lifespan:
        lifespan = Lifespan(application, mode, Logger())
        try:
            await lifespan.startup()
        finally:
            supported = lifespan.supported
            await lifespan.shutdown(seconds)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        assert lifespan.supported is supported
        return lifespan

    return asyncio.run(live())


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_who_knows_it_is_told_of_both_ends(mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    lifespan = lived(answers(*BOTH), mode)
    assert lifespan.supported and lifespan.state == {"pool": "open"}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("application", [raises, returns, answers()])
def test_who_does_not_know_it_is_served_unless_it_must(
    application: Application, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not lived(application, "auto").supported
    assert capfd.readouterr().err == ""
    with pytest.raises(BootError, match="lifespan is on, and the application does not support it"):
        lived(application, "on")


def test_nobody_is_told_where_it_is_off() -> None:
    assert not lived(raises, "off").supported


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize(("more", "why"), [({"message": "no database"}, "no database"), ({}, "it said so")])
def test_who_says_that_it_failed_is_not_served(mode: str, more: dict[str, str], why: str) -> None:
    with pytest.raises(BootError, match=f"startup failed: {why}"):
        lived(answers("lifespan.startup.failed", **more), mode)


@pytest.mark.parametrize(
    ("application", "seconds", "line"),
    [
        (answers(*FAILS, message="busy"), 20, "shutdown failed: busy"),
        (ends_badly, 20, "shutdown failed: OSError: no database"),
        (asks_for_more, 0.01, "shutdown took longer than 0.01 s, and is cut"),
    ],
)
def test_a_shutdown_that_goes_wrong_is_logged_and_no_more(
    application: Application, seconds: float, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lived(application, "auto", seconds).supported
    assert line in capfd.readouterr().err


@pytest.mark.parametrize("said", ["lifespan.shutdown.complete", "lifespan.startup.done", "http.response.start"])
def test_what_was_not_asked_for_is_refused(said: str) -> None:
    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        with pytest.raises(RuntimeError, match="is not what lifespan has asked for"):
            await send({"type": said})
        await send({"type": "lifespan.startup.complete"})

    assert lived(application, "auto").supported


def test_who_has_ended_before_is_not_told_of_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    assert lived(answers("lifespan.startup.complete"), "auto").supported
    assert capfd.readouterr().err == ""


TRACEBACK = """Traceback (most recent call last):
  File "/opt/site-packages/starlette/routing.py", line 661, in lifespan
    async with self.lifespan_context(app):
  File "/srv/shop/main.py", line 8, in lifespan
    raise RuntimeError("no database\\nat db.example")
RuntimeError: no database
at db.example
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no database", "no database"),
        ("no database\nat db.example\n", "no database"),
        (TRACEBACK, "RuntimeError: no database (/srv/shop/main.py, line 8)"),
        ("Traceback (most recent call last):\nKeyError: 1", "KeyError: 1"),
        ("\n", "\n"),
    ],
)
def test_a_reason_is_one_line(text: str, line: str) -> None:
    assert in_one_line(text) == line


async def says_a_traceback(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": TRACEBACK})


async def says_a_traceback_and_raises(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """As Starlette does."""
    await says_a_traceback(scope, receive, send)
    raise RuntimeError("no database")


@pytest.mark.parametrize("application", [says_a_traceback, says_a_traceback_and_raises])
def test_a_traceback_is_for_the_log_once(application: Application, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BootError, match=r"failed: RuntimeError: no database \(/srv/shop/main.py, line 8\)$"):
        lived(application, "auto")
    assert capfd.readouterr().err.count("Traceback") == 1
