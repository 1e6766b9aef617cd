"""What worker classes that serve HTTP have in common: their configuration read once, records, and who is named."""

import errno
import os
from collections.abc import Iterable
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any

from sdserve import SERVER_SOFTWARE, events, greenlets
from sdserve.errors import NO_ROOM, BootError, ConfigError, no_room
from sdserve.gateway.environ import Environs, ErrorStream, Terms, variable
from sdserve.gateway.forwarded import Forwarding, Trusted
from sdserve.http.response import HeadWriter
from sdserve.http.strict import demand_strict
from sdserve.log import Logger
from sdserve.workers.base import Worker
from sdserve.workers.http.client import Running
from sdserve.workers.http.loop import Loop
from sdserve.workers.lasting import Lasting
from sdserve.workers.options import Options

if TYPE_CHECKING:
    from sdserve.access.measured import Records
    from sdserve.config import Config

HEAP = 2 << 20  # bytes


def keep_heap() -> None:
    """Has the C library keep free memory up to twice `HEAP`.

    glibc returns the end of its heap to the kernel when 128 KiB of it are free, which the body of a request can bring
    about each time; half of what such a request costs is then page faults. A large block that is freed teaches it to
    wait for more (mallopt(3), M_MMAP_THRESHOLD). Other C libraries take no notice.
    """
    bytes(HEAP)


class HTTPWorker(Worker):
    """Serves HTTP by a loop that subclasses make in `make_loop`."""

    adopts = True
    head_writer: type[HeadWriter] = HeadWriter
    _loop: Loop[Any] | None = None

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
            from sdserve.access.formats import unknown_atoms
            from sdserve.access.log import form_of

            try:
                form_of(cfg.access_log_format)
            except ValueError as error:
                problems.append(str(error))
            for atom in unknown_atoms(cfg.access_log_format):
                log.warning("access_log_format: %s is not an atom, and will be written as -", atom)
        if problems:
            raise ConfigError(problems)

    def make_loop(self) -> Loop[Any]:
        """The loop that serves this worker's listeners."""
        raise NotImplementedError

    def get_ready(self) -> None:
        greenlets.demand_none()
        try:
            self._loop = self.make_loop()
            self._loop.get_ready()
        except OSError as error:
            if error.errno not in (*NO_ROOM, errno.ENOSPC):  # the latter: fs.epoll.max_user_watches, epoll(7)
                raise
            raise BootError(no_room("what polls connections", error)) from error

    def run(self) -> None:
        assert self._loop is not None
        keep_heap()
        try:
            self._loop.run()
        finally:
            self.write_records()

    @cached_property
    def options(self) -> Options:
        return Options.of(self.cfg)

    @cached_property
    def environs(self) -> Environs:
        """What makes environs of requests."""
        options, cfg = self.options, self.cfg
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
        return Environs(forwarding, terms)

    @cached_property
    def heads(self) -> HeadWriter:
        """What writes the heads of answers."""
        heads = self.head_writer(SERVER_SOFTWARE)
        heads.keeps = self.options.times.keepalive > 0
        return heads

    @cached_property
    def access(self) -> "Records | None":
        """What takes records of answers, for the access log and for statsd; None where nobody reads them."""
        log = None
        if self.log.access_enabled:
            from sdserve.access.log import AccessLog, form_of

            form = form_of(self.cfg.access_log_format)
            log = AccessLog(form, self.log.access, self.log.exception, self.cfg.access_log_exclude)
        if self.log.statsd is not None:
            from sdserve.access.measured import MeasuredRequests

            return MeasuredRequests(self.log.statsd, log)
        return log

    def calls(self) -> Iterable[Lasting]:
        return self._loop.lasting() if self._loop is not None else ()

    def write_records(self) -> None:
        if self.access is not None:
            self.access.flush()

    def handle_abort(self, signum: int, frame: FrameType | None) -> None:
        """Names the requests that are in the application; before the stacks of all threads are written."""
        self.write_records()
        if self._loop is not None:
            self._loop.count_last()
            where = self.where(frame)
            for call in self._loop.calls():
                if call.stuck and where:
                    self.request_timed_out(call, ". It is at:\n", where)
                    where = ""
                else:
                    self.log.critical("%s", call.text)
            if where:
                self.log.error("It is at:\n%s", where)
        super().handle_abort(signum, frame)

    def request_timed_out(self, call: Running, note: str, stack: str) -> None:
        """Logs a request that is stuck, and where."""
        self.log.event(events.REQUEST_TIMEOUT, note=note + stack, STACK=stack, **call.about(self.pid))

    def where(self, frame: FrameType | None) -> str:
        """The stack of the one thread that is stuck at `frame`; "" where it is not known to be one."""
        return ""

    def close_in_child(self) -> None:
        super().close_in_child()
        if self._loop is not None:
            self._loop.close_in_child()
