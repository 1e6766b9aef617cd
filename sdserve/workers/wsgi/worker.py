"""The WSGI worker: wires configuration, gateway and loop together. The work itself is in loop.py and exchange.py."""

import _thread
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any

from sdserve import SERVER_SOFTWARE
from sdserve.errors import ConfigError
from sdserve.gateway.forwarded import Forwarding, Trusted
from sdserve.gateway.loader import demand_wsgi
from sdserve.gateway.wsgi import ErrorStream, Gateway, Terms, variable
from sdserve.http.response import HeadWriter
from sdserve.http.strict import demand_strict
from sdserve.log import Logger
from sdserve.workers.base import Worker
from sdserve.workers.options import Options
from sdserve.workers.told import RETIRING
from sdserve.workers.wsgi import stuck
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.exchange import Exchange
from sdserve.workers.wsgi.loop import Loop

if TYPE_CHECKING:
    from sdserve.access import AccessLog
    from sdserve.config import Config


HEAP = 2 << 20  # bytes


def keep_heap() -> None:
    """Has the C library keep free memory up to twice `HEAP`.

    glibc returns the end of its heap to the kernel when 128 KiB of it are free, which the body of a request can bring
    about each time; half of what such a request costs is then page faults. A large block that is freed teaches it to
    wait for more (mallopt(3), M_MMAP_THRESHOLD). Other C libraries take no notice.
    """
    bytes(HEAP)


class WSGIWorker(Worker):
    """Serves a WSGI application, with one thread or several."""

    _loop: Loop | None = None
    _outlives = False  # aborted, and finishes what it holds

    @classmethod
    def check_config(cls, cfg: "Config", log: Logger) -> None:
        demand_strict()
        problems = []
        for name in ("forwarded_allow_ips", "proxy_allow_ips"):
            try:
                Trusted(getattr(cfg, name))
            except ValueError as error:
                problems.append(f"{name}: {error}")
        if cfg.accesslog:
            from sdserve.access import Format, unknown_atoms

            try:
                Format(cfg.access_log_format)
            except ValueError as error:
                problems.append(str(error))
            for atom in unknown_atoms(cfg.access_log_format):
                log.warning("access_log_format: %s is not an atom, and will be written as -", atom)
        if problems:
            raise ConfigError(problems)

    @classmethod
    def check_app(cls, app: Callable[..., Any], uri: str) -> None:
        demand_wsgi(app, uri)

    def warm_up(self, target: str) -> None:
        from sdserve.workers.wsgi.warmup import warm_up

        warm_up(self.gateway, target, self.options.limits, self.log)

    def run(self) -> None:
        keep_heap()
        exchange = Exchange(self, self.gateway, self.options, self._access)
        self._loop = Loop(self, self.options, exchange, self.request_stuck)
        try:
            self._loop.run()
        finally:
            self._write_records()

    @cached_property
    def options(self) -> Options:
        return Options.of(self.cfg)

    @cached_property
    def gateway(self) -> Gateway:
        """What calls the application."""
        options = self.options
        cfg = self.cfg
        terms = Terms(
            multithread=cfg.threads > 1,
            multiprocess=cfg.workers > 1,
            script_name=os.environ.get("SCRIPT_NAME", ""),
            header_map=cfg.header_map,
            forwarder=frozenset(name.upper() for name in cfg.forwarder_headers),
            errors=ErrorStream(self.log),
        )
        forwarding = Forwarding(
            *(Trusted(options.forwarded_allow_ips), options.secure_scheme_headers),
            family=options.forwarded_headers,
            key=variable,
        )
        gateway = Gateway(self.wsgi, HeadWriter(SERVER_SOFTWARE), forwarding, terms, self.log)
        gateway.writer.keeps = options.times.keepalive > 0
        gateway.pulls = not cfg.response_buffering
        gateway.timeout = options.timeout
        return gateway

    @cached_property
    def _access(self) -> "AccessLog | None":
        """What writes access records, None where nobody reads them."""
        if not self.log.access_enabled:
            return None
        from sdserve.access import AccessLog, Format

        return AccessLog(Format(self.cfg.access_log_format), self.log.access, self.log.exception)

    def _write_records(self) -> None:
        if self._access is not None:
            self._access.flush()

    def handle_abort(self, signum: int, frame: FrameType | None) -> None:
        """Names the requests that are in the application; before the stacks of all threads are written."""
        self._write_records()
        if self._loop is not None:
            for call in self._loop.calls():
                self.log.critical("%s", call)
            if self.cfg.threads <= 1:
                own = self._loop.own_thread()
                self.log.error("It is at:\n%s", stuck.stack(sys._current_frames().get(own) if own else frame))
        super().handle_abort(signum, frame)

    def let_go(self) -> None:
        super().let_go()
        if self._loop is not None:
            self._loop.let_go()

    def _retire(self) -> None:
        super()._retire()
        if self._loop is not None and self.cfg.threads <= 1 and self._loop.calls():
            # The one thread is in that call. Whether it ends in time only another one can see.
            with suppress(RuntimeError):
                _thread.start_new_thread(self._name_what_is_late, (self._loop,))

    def _name_what_is_late(self, loop: Loop) -> None:
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
        if not stuck.is_in_call(frame):
            return True
        stuck.outlive(self._loop.run_without, self.drain_by or 0.0, self.log)
        return False

    def request_stuck(self, client: WSGIClient, seconds: float, thread: int) -> None:
        """A request exceeded the time-out in one of several threads: the log says where, and a successor is asked for.

        Everything else this worker holds is finished: threads cannot be killed, processes can.
        """
        self.log.error(
            "%s, longer than timeout%s; worker %s is replaced. It is at:\n%s",
            client.describe(seconds),
            " without progress" if client.progress >= 0 else "",
            self.pid,
            stuck.stack(sys._current_frames().get(client.own_thread or thread)),
        )
        self.ask_for_replacement("has a thread that is stuck")
