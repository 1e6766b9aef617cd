"""The lifespan of an ASGI application (Lifespan Protocol 2.0): startup before a worker serves, then shutdown."""

import asyncio
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

from sdserve.errors import BootError, Leave, in_words
from sdserve.gateway.blame import in_brackets, standing, waiting
from sdserve.log import Logger

AUTO, ON, OFF = "auto", "on", "off"
STARTUP, SHUTDOWN = "lifespan.startup", "lifespan.shutdown"


class Lifespan:
    """`mode` is auto (an application that does not know of lifespan is served all the same), on or off."""

    def __init__(self, app: Callable[..., Awaitable[Any]], mode: str, log: Logger) -> None:
        self._app = app
        self._mode = mode
        self._log = log
        self.state: dict[str, Any] = {}
        self.supported = False
        self._task: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[str]] = {}  # "" or why it has failed
        self._asked = ""
        self._raised = False

    async def startup(self) -> None:
        """Raises BootError where the application says that it has failed, or must know lifespan and does not."""
        if self._mode == OFF:
            return
        failure = await self._ask(STARTUP)
        if self.supported:
            if failure:
                self.supported = False  # it has nothing to shut down
                if "\n" in failure and not self._raised:
                    self._log.error("The application's lifespan startup failed: %s", failure)
                raise BootError(f"the application's lifespan startup failed: {in_one_line(failure)}")
        elif self._mode == ON:
            raise BootError(f"lifespan is on, and the application does not support it: {in_one_line(failure)}")
        else:
            self._log.debug("The application has no lifespan: %s", failure)

    def unanswered(self, frame: FrameType | None) -> str:
        """What the application has not answered yet, and where it waits, or runs at `frame`; "" if there is nothing."""
        if self._task is None or self._task.done() or self._answers[self._asked].done():
            return ""
        where = waiting(self._task.get_coro()) or standing(frame)
        return f"{self._asked} is not complete{in_brackets(where)}"

    async def shutdown(self, seconds: float) -> None:
        """Gives the application so long to end in order."""
        if not self.supported or self._task is None or self._task.done():
            return
        try:
            async with asyncio.timeout(seconds):
                failure = await self._ask(SHUTDOWN)
            if failure:
                self._log.error("The application's lifespan shutdown failed: %s", failure)
        except TimeoutError:
            self._log.error("The application's lifespan shutdown took longer than %.3g s, and is cut", seconds)

    async def _ask(self, what: str) -> str:
        self._asked = what
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers[what] = answer
        self._events.put_nowait({"type": what})
        if self._task is None:
            self._task = asyncio.ensure_future(self._live())
        return await answer

    async def _live(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        failure = "it returned without an answer"
        try:
            await self._app(scope, self._events.get, self._send)
        except (asyncio.CancelledError, Leave):
            failure = "it was cancelled"
        except BaseException as error:  # noqa: BLE001 - what it is about is decided by who waits
            failure = in_words(error)
            if self.supported or self._mode == ON:
                self._raised = True
                self._log.error("Exception in the application's lifespan", exc_info=error)
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_result(failure)

    async def _send(self, message: dict[str, Any]) -> None:
        what, _, how = message["type"].rpartition(".")
        answer = self._answers.get(what)
        if answer is None or how not in ("complete", "failed"):
            raise RuntimeError(f"{message['type']!r} is not what lifespan has asked for")
        if what == STARTUP:
            self.supported = True
        if not answer.done():
            answer.set_result("" if how == "complete" else message.get("message", "") or "it said so")


def in_one_line(text: str) -> str:
    """Of a traceback, which Starlette sends as its message, the exception and its place; else the first line."""
    lines = text.strip().splitlines()
    if len(lines) < 2 or not lines[0].startswith("Traceback "):
        return lines[0] if lines else text
    told = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    raised = next((line for line in lines[told[-1] + 1 :] if not line.startswith(" ")), "") if told else ""
    if not raised:
        return lines[-1]
    file, _, rest = lines[told[-1]].strip().removeprefix('File "').partition('", ')
    return f"{raised} ({file}, {rest.partition(',')[0]})"
