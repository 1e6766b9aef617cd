"""The ASGI worker: wires configuration, event loop, lifespan and exchange together. The work itself is in loop.py,
clients.py and exchange.py."""

import asyncio
from functools import cached_property
from types import FrameType
from typing import Any

from sdserve import SERVER_SOFTWARE
from sdserve.gateway.asgi import AsgiHeads
from sdserve.gateway.lifespan import Lifespan
from sdserve.gateway.scope import Scopes
from sdserve.http.response import HeadWriter
from sdserve.process.forked import Border
from sdserve.workers.asgi.exchange import ASGIExchange
from sdserve.workers.asgi.loop import ASGILoop, new_event_loop
from sdserve.workers.asgi.options import AsgiOptions
from sdserve.workers.asgi.tasks import Tasks
from sdserve.workers.http.worker import HTTPWorker


class ASGIWorker(HTTPWorker):
    """Serves an ASGI application in one event loop."""

    _loop: ASGILoop | None = None
    _lifespan: Lifespan

    @cached_property
    def asgi(self) -> AsgiOptions:
        return AsgiOptions.of(self.cfg)

    @cached_property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        loop = new_event_loop(self.asgi.loop)
        asyncio.set_event_loop(loop)
        return loop

    @cached_property
    def heads(self) -> HeadWriter:
        heads = AsgiHeads(SERVER_SOFTWARE)
        heads.keeps = self.options.times.keepalive > 0
        return heads

    def init_process(self) -> None:
        super().init_process()

    def make_loop(self) -> ASGILoop:
        state = self._lifespan.state if self._lifespan.supported else None
        scopes = Scopes(self.environs, self.asgi.root_path, state)
        exchange = ASGIExchange(
            *(self, self.wsgi, self.environs, scopes, self.heads, Tasks(self.event_loop), self.options, self.access)
        )
        return ASGILoop(self, self.options, exchange, self.event_loop)

    def start_lifespan(self) -> None:
        """Raises BootError."""
        self._lifespan = Lifespan(self.wsgi, self.asgi.lifespan, self.log)
        with Border(self.log.error):
            self.event_loop.run_until_complete(self._lifespan.startup())

    def run(self) -> None:
        try:
            super().run()
        finally:
            loop = self.event_loop
            loop.run_until_complete(self._lifespan.shutdown(self.asgi.shutdown_timeout))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def name_the_line(self, frame: FrameType | None) -> None:
        from sdserve.workers.wsgi import stuck

        self.log.error("It is at:\n%s", stuck.stack(frame))

    def warm_up(self, target: str) -> None:
        self.log.warning("no warm up yet")


__all__: list[Any] = []
