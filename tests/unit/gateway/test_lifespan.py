"""What becomes of a worker by what an application makes of lifespan: nothing of it waits for a server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sdserve.errors import BootError
from sdserve.gateway.lifespan import Lifespan
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
