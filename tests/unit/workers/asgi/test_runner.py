"""What runs in an event loop before and after service ends when a signal says so, and the loop can be used on."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from types import FrameType

import pytest

from sdserve.errors import Leave
from sdserve.log import Logger
from sdserve.workers.asgi.extra import new_event_loop
from sdserve.workers.asgi.runner import Runner

LONG = 30.0  # seconds: nobody waits so long


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """It is interrupted by SIGUSR2."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    with closing(new_event_loop(request.param, Logger())) as loop:
        runner = Runner(loop)

        def hear(signum: int, frame: FrameType | None) -> None:
            assert runner.interrupt()

        before = signal.signal(signal.SIGUSR2, hear)
        yield runner
        signal.signal(signal.SIGUSR2, before)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGUSR2)


async def one() -> int:
    await asyncio.sleep(0)
    return 1


def test_it_returns_and_raises_what_is_run(runner: Runner) -> None:
    async def fails() -> None:
        raise KeyError("x")

    assert runner.run(one()) == 1
    with pytest.raises(KeyError):
        runner.run(fails())
    assert not runner.interrupt()


def test_who_stops_the_loop_has_no_say(runner: Runner) -> None:
    async def stops() -> int:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return await one()

    assert runner.run(stops()) == 1


def test_who_waits_is_cancelled(runner: Runner) -> None:
    ended = []

    async def waits() -> None:
        asyncio.get_running_loop().call_soon(interrupt)
        try:
            await asyncio.sleep(LONG)
        finally:
            ended.append("waits")

    with pytest.raises(Leave):
        runner.run(waits())
    assert runner.run(one()) == 1
    assert ended == ["waits"]


def test_who_takes_no_notice_is_not_waited_for(runner: Runner) -> None:
    woken = asyncio.Event()

    async def waits() -> None:
        asyncio.get_running_loop().call_soon(interrupt)
        while True:
            try:
                await woken.wait()
                return
            except asyncio.CancelledError:
                continue

    with pytest.raises(Leave):
        runner.run(waits())
    woken.set()
    assert runner.run(one()) == 1


@pytest.mark.parametrize("many", [1, 2])
def test_who_blocks_the_loop_is_interrupted(runner: Runner, many: int) -> None:
    raised = []

    async def blocks() -> None:
        for _ in range(many):
            interrupt()
        try:
            threading.Event().wait(LONG)
        except Leave as error:
            raised.append(error)
            raise

    before = time.monotonic()
    with pytest.raises(Leave):
        runner.run(blocks())
    assert len(raised) == 1 and time.monotonic() - before < LONG
    assert runner.run(one()) == 1


def test_who_swallows_that_and_blocks_again_is_interrupted_again(runner: Runner) -> None:
    raised = []

    async def blocks() -> None:
        interrupt()
        for _ in range(2):
            try:
                threading.Event().wait(LONG)
            except BaseException as error:  # noqa: BLE001 - as careless code does
                raised.append(type(error))

    with pytest.raises(Leave):
        runner.run(blocks())
    assert raised == [Leave, Leave]
    assert runner.run(one()) == 1


def test_what_ends_meanwhile_ends_in_the_same_way(runner: Runner) -> None:
    async def fails() -> None:
        interrupt()
        raise KeyError("x")

    with pytest.raises(Leave):
        runner.run(fails())
    assert runner.run(one()) == 1


@pytest.mark.parametrize("runner", ["uvloop"], indirect=True)
@pytest.mark.parametrize("method", ["setblocking", "close"])
def test_a_signal_amid_the_loops_own_code_does_it_no_harm(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """uvloop makes a pair of sockets when it begins to run, and closes it when it ends."""
    real = getattr(socket.socket, method)

    def told(self: socket.socket, *args: object) -> object:
        monkeypatch.undo()
        interrupt()
        return real(self, *args)

    monkeypatch.setattr(socket.socket, method, told)
    with pytest.raises(Leave):
        runner.run(one())
    assert getattr(socket.socket, method) is real  # it came
    assert runner.run(one()) == 1
