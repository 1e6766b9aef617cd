"""The WSGI worker: wires configuration, gateway and loop together. The work itself is in loop.py and exchange.py."""

import _thread
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from types import FrameType
from typing import Any

from sdserve.gateway.answer import Nowhere
from sdserve.gateway.environ import Environ
from sdserve.gateway.loader import demand_wsgi
from sdserve.gateway.response import Response
from sdserve.gateway.wsgi import Gateway
from sdserve.http.request import Request
from sdserve.workers import stuck
from sdserve.workers.http.worker import HTTPWorker
from sdserve.workers.words import RETIRING
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.exchange import WSGIExchange
from sdserve.workers.wsgi.loop import WSGILoop

# Where requests begin, in the stack of a thread that is stuck.
BEGINNINGS = (WSGIExchange.answer.__code__, WSGIExchange.go_on.__code__, WSGIExchange.in_fiber.__code__)


class WSGIWorker(HTTPWorker):
    """Serves a WSGI application, with one thread or several."""

    _loop: WSGILoop | None = None
    _outlives = False  # aborted, and finishes what it holds

    @classmethod
    def check_app(cls, app: Callable[..., Any], uri: str) -> None:
        demand_wsgi(app, uri)

    def warm_up(self, target: str) -> None:
        from sdserve.workers.http.warmup import warm_up

        warm_up(self.environs, target, self.options.limits, self._answer_nobody, self.log)

    def _answer_nobody(self, base: Environ, request: Request) -> Response:
        environ = self.environs.of_request(base, request, 0)
        environ["wsgi.input"] = BytesIO()
        response = Response(self.gateway, Nowhere(), request)
        self.gateway.call(environ, response)
        return response

    def make_loop(self) -> WSGILoop:
        exchange = WSGIExchange(self, self.gateway, self.environs, self.options, self.access)
        self._loop = loop = WSGILoop(self, self.options, exchange, self.request_stuck)
        return loop

    @cached_property
    def gateway(self) -> Gateway:
        """What calls the application."""
        gateway = Gateway(self.wsgi, self.heads, self.log)
        gateway.pulls = not self.cfg.response_buffering
        gateway.timeout = self.options.timeout
        return gateway

    def where(self, frame: FrameType | None) -> str:
        if self._loop is None or self.cfg.threads > 1:
            return ""
        own = self._loop.own_thread()
        return stuck.stack(sys._current_frames().get(own) if own else frame, BEGINNINGS)

    def _retire(self) -> None:
        super()._retire()
        if self._loop is not None and self.cfg.threads <= 1 and self._loop.calls():
            # The one thread is in that call. Whether it ends in time only another one can see.
            with suppress(RuntimeError):
                _thread.start_new_thread(self._name_what_is_late, (self._loop,))

    def _name_what_is_late(self, loop: WSGILoop) -> None:
        time.sleep(max(0.0, (self.drain_by or 0.0) - time.monotonic()))
        loop.name_what_is_cut()

    def outlive(self, frame: FrameType | None) -> bool:
        """With one thread, the signal has interrupted it, in the application as a rule: see stuck.py."""
        if self._loop is None or self.cfg.threads > 1 or self._outlives:
            return False
        self._outlives = self._told = True  # the master's time-out: it serves on
        if self.drain_by is None:
            self._retire()
        else:
            self.tell(RETIRING)  # once more: the master waits for us instead of a second
        if not stuck.is_in_call(frame, BEGINNINGS):
            return True
        stuck.outlive(self._loop.run_without, self.drain_by or 0.0, self.log)
        return False

    def request_stuck(self, client: WSGIClient, seconds: float, thread: int) -> None:
        """A request exceeded the time-out in one of several threads: the log says where, and a successor is asked for.

        Everything else this worker holds is finished: threads cannot be killed, processes can.
        """
        without = " without progress" if client.progress >= 0 else ""
        note = f", longer than timeout{without}; worker {self.pid} is replaced. It is at:\n"
        stack = stuck.stack(sys._current_frames().get(client.own_thread or thread), BEGINNINGS)
        self.request_timed_out(client.running(client.running_since + seconds), note, stack)
        self.ask_for_replacement("has a thread that is stuck")
