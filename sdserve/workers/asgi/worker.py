"""The ASGI worker: wires configuration, event loop, lifespan and exchange together.

The work itself is in loop.py, clients.py and exchange.py.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import cached_property
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

from sdserve.gateway.asgi import AsgiHeads
from sdserve.gateway.environ import Environ
from sdserve.gateway.lifespan import Lifespan
from sdserve.gateway.protocol import demand_asgi
from sdserve.gateway.scope import Scopes
from sdserve.http.request import Request
from sdserve.log import Logger
from sdserve.process.forked import Border
from sdserve.workers import stuck
from sdserve.workers.asgi.exchange import ASGIExchange
from sdserve.workers.asgi.extra import demand_loop, later, new_event_loop
from sdserve.workers.asgi.loop import ASGILoop
from sdserve.workers.asgi.options import AsgiOptions
from sdserve.workers.asgi.runner import Runner
from sdserve.workers.asgi.signals import Borrowed
from sdserve.workers.asgi.tasks import Tasks
from sdserve.workers.http.deadlines import NEVER
from sdserve.workers.http.worker import HTTPWorker
from sdserve.workers.told import HANDLED
from sdserve.workers.words import RETIRING

if TYPE_CHECKING:
    from sdserve.config import Config

# What is found in the stack of an event loop that is stuck: the beginning of a call, or a turn of our own.
BEGINNINGS = (ASGIExchange._run.__code__,)
TURNS = (ASGILoop._turn.__code__, ASGILoop._settle.__code__)


class ASGIWorker(HTTPWorker):
    """Serves an ASGI application in one event loop."""

    head_writer = AsgiHeads
    _loop: ASGILoop | None = None
    _outlives = False  # aborted, and gives away what it holds
    _leave_by = NEVER  # requests and the application's shutdown have ended by then

    @classmethod
    def check_config(cls, cfg: "Config", log: Logger) -> None:
        super().check_config(cfg, log)
        demand_loop(cfg)

    @classmethod
    def later(cls, cfg: "Config") -> Iterable[str]:
        return later(cfg.asgi_loop)

    @classmethod
    def check_app(cls, app: Callable[..., Any], uri: str) -> None:
        demand_asgi(app, uri)

    @cached_property
    def asgi(self) -> AsgiOptions:
        return AsgiOptions.of(self.cfg)

    @cached_property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of this process. Raises BootError where uvloop is asked for and missing."""
        loop = new_event_loop(self.asgi.loop, self.log)
        asyncio.set_event_loop(loop)
        Borrowed(loop, HANDLED, self.hear_signals)
        return loop

    @cached_property
    def runner(self) -> Runner:
        return Runner(self.event_loop)

    @cached_property
    def lifespan(self) -> Lifespan:
        return Lifespan(self.wsgi, self.asgi.lifespan, self.log)

    @cached_property
    def exchange(self) -> ASGIExchange:
        """What calls the application, once its lifespan has begun."""
        state = self.lifespan.state if self.lifespan.supported else None
        scopes = Scopes(self.environs, self.asgi.root_path, state, self.asgi.sendfile)
        tasks = Tasks(self.event_loop)
        exchange = ASGIExchange(*(self, self.wsgi, self.environs, scopes, self.heads, tasks, self.options, self.access))
        exchange.asgi = self.asgi
        return exchange

    def make_loop(self) -> ASGILoop:
        options = self.options
        return ASGILoop(self, options, self.exchange, self.event_loop, self.asgi.stream_grace)

    def init_process(self) -> None:
        try:
            super().init_process()
        except BaseException:
            try:
                if self._loop is not None:
                    self._loop.give_up()
                self._close()
            except Exception:
                self.log.exception("Worker %s cannot end its application's lifespan", self.pid)
            raise
        self._close()

    def prepare(self) -> None:
        self.runner.run(self.lifespan.startup())

    def boots_at(self, frame: FrameType | None) -> str:
        asked = self.lifespan.unanswered(frame) if "lifespan" in self.__dict__ else ""
        return asked or super().boots_at(frame)

    def interrupt_boot(self) -> None:
        runner: Runner | None = self.__dict__.get("runner")
        if runner is None or not runner.interrupt():
            super().interrupt_boot()

    def _close(self) -> None:
        """The application's shutdown, whatever has ended the worker; then everything that its loop still has."""
        if "lifespan" not in self.__dict__:  # it was not even loaded
            return
        self.leaving = True
        loop, run = self.event_loop, self.runner.run
        with Border(self.log.error):
            seconds = self._for_shutdown()
            run(self.lifespan.shutdown(seconds))
            if self._loop is not None:
                self._loop.end_calls()
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                run(asyncio.wait(left, timeout=seconds / 4))
            run(loop.shutdown_asyncgens())
            loop.close()
        self.write_records()  # of calls that ended only now

    def _retire(self) -> None:
        super()._retire()
        self._share(self.cfg.graceful_timeout)

    def outlive_master(self) -> None:
        if not self.orphaned:
            super().outlive_master()
            self._share(self.cfg.orphan_timeout)

    def _share(self, seconds: float) -> None:
        """This worker leaves within `seconds`: its requests have them, less what the application's shutdown needs."""
        now = monotonic()
        self._leave_by = min(self._leave_by, now + seconds)
        share = self.asgi.shutdown_share(seconds) if "lifespan" in self.__dict__ and self.lifespan.supported else 0.0
        self.drain_by = min(self.drain_by or NEVER, now + seconds - share)

    def _for_shutdown(self) -> float:
        """Seconds for the application's shutdown: its share, and what requests have left of theirs."""
        share = self.asgi.shutdown_share(self.cfg.orphan_timeout if self.orphaned else self.cfg.graceful_timeout)
        left = self._leave_by - monotonic() if self._leave_by < NEVER else share
        return max(share, min(self.asgi.shutdown_timeout, left))

    def outlive(self, frame: FrameType | None) -> bool:
        """The signal has interrupted what blocks the event loop: see workers/stuck.py."""
        if self._loop is None or self._outlives:
            return False
        self._outlives = self._told = True
        if self.drain_by is None:
            self._retire()
        else:
            self.tell(RETIRING)  # once more: the master waits for us instead of a second
        if stuck.is_in_call(frame, TURNS) and not stuck.is_in_call(frame, BEGINNINGS):
            return True  # it turns
        stuck.outlive(self._loop.run_without, self.drain_by or 0.0, self.log)
        return False

    def where(self, frame: FrameType | None) -> str:
        return stuck.stack(frame, BEGINNINGS)

    def warm_up(self, target: str) -> None:
        from sdserve.workers.http.warmup import warm_up

        warm_up(self.environs, target, self.options.limits, self._answer_nobody, self.log)

    def _answer_nobody(self, base: Environ, request: Request) -> Any:
        return self.runner.run(self.exchange.answer_nobody(base, request))
