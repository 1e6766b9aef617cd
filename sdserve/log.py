"""Loggers: errors and life cycle to one place, access records to another.

The API is gunicorn's `Logger`, as far as hooks and worker classes use it. Destinations differ in form only:

- the journal gets `<N>` priorities and no time stamp, since journald knows the time better;
- a terminal gets time stamps, and at level `trace` each process in its own colour;
- a file gets time stamps and never an escape sequence.

`trace` is a level below debug that follows each process through its life: who, in which state, which event.

gunicorn's names for the loggers, `gunicorn.error` and `gunicorn.access`, are names of the same ones: applications put
their handlers under their own loggers, and libraries write to them.

A log never decides anything: a record that cannot be written is lost and counted (process/output.py), and the first one
that can be says how many were.
"""

import logging
import sys
from collections.abc import Sequence
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING, FileHandler, Handler, NullHandler
from typing import TYPE_CHECKING, Any

from sdserve.errors import ConfigError
from sdserve.events import Event
from sdserve.handlers import (
    TRACE,
    AccessFormatter,
    Echo,
    Emitting,
    JournalFormatter,
    formatter_for,
    handler_for,
    is_elsewhere,
    is_journal,
    say,
)
from sdserve.immutable import Immutable
from sdserve.process.log_file import Owner, open_file
from sdserve.systemd import records

if TYPE_CHECKING:
    from sdserve.access.statsd import Statsd

LEVELS = {"critical": CRITICAL, "error": ERROR, "warning": WARNING, "info": INFO, "debug": DEBUG, "trace": TRACE}

logging.addLevelName(TRACE, "TRACE")


class Logger:
    """The error log and the access log of one process tree.

    `errorlog` and `accesslog` are paths, `-` for stderr and stdout, None for no access log; `level` is a key of LEVELS;
    `owner` is the uid and the gid that files which root makes are given. Raises ConfigError when one cannot be opened.
    """

    def __init__(
        self, errorlog: str = "-", accesslog: str | None = None, level: str = "info", owner: Owner | None = None
    ) -> None:
        self.error_log = _known_as("sdserve.error", "gunicorn.error")
        self.access_log = _known_as("sdserve.access", "gunicorn.access")
        self._take_methods()
        self.statsd: Statsd | None = None
        self.in_force: Destinations | None = None
        self._echo: Echo | None = None
        for logger in (self.error_log, self.access_log):
            for old in list(logger.handlers):  # of another Logger in this process
                logger.removeHandler(old)
                old.close()
        self.setup(errorlog, accesslog, level, owner)

    def setup(self, errorlog: str, accesslog: str | None, level: str, owner: Owner | None = None) -> None:
        """Applies a new configuration. When it raises ConfigError, the one in force stays."""
        before = self.use(self.open(errorlog, accesslog, level, owner))
        if before is not None:
            before.close()

    def open(self, errorlog: str, accesslog: str | None, level: str, owner: Owner | None = None) -> "Destinations":
        """Opens what a configuration names, beside what is in force. Raises ConfigError, with nothing left open."""
        error = handler_for(errorlog, sys.stderr, owner)
        error.setFormatter(formatter_for(error))
        access: Handler = NullHandler()
        if accesslog is not None:
            try:
                access = handler_for(accesslog, sys.stdout, owner)
            except ConfigError:
                Destinations(error, access, level).close()
                raise
            access.setFormatter(AccessFormatter(is_journal(access)))
        return Destinations(error, access, level)

    def use(self, destinations: "Destinations") -> "Destinations | None":
        """Writes to these from now on; returns those before, which are open still. Cannot fail."""
        before, self.in_force = self.in_force, destinations
        _replace(self.error_log, destinations.error)
        self._place_echo()
        self.error_log.setLevel(LEVELS[destinations.level])
        _replace(self.access_log, destinations.access)
        self.access_log.setLevel(INFO)
        self.level = destinations.level
        return before

    def measure(self, statsd: "Statsd | None") -> None:
        """Has records counted, and the figures in them sent, by `statsd` from now on; None: no more."""
        if statsd is self.statsd:
            return
        from sdserve.access.measured import MeasuredLogger

        self.statsd = statsd
        # Also for none: methods of the class before may be held by anybody.
        kind = type("_MeasuredLogger", (MeasuredLogger, _ServerLogger), {"statsd": statsd})
        _change(kind, "sdserve.error", "gunicorn.error")
        self._take_methods()

    def _take_methods(self) -> None:
        log = self.error_log
        self.critical, self.error, self.warning, self.info = log.critical, log.error, log.warning, log.info
        self.debug, self.exception = log.debug, log.exception

    def echo(self, wanted: bool) -> None:
        """Whether errors are told on standard error as well, where the error log is a file.

        They are until something is served: whoever starts a service looks there, and in the journal, for what is wrong.
        """
        if wanted and self._echo is None:
            self._echo = Echo(sys.stderr)
            self._place_echo()
        elif not wanted and self._echo is not None:
            self.error_log.removeHandler(self._echo)
            self._echo.end()
            self._echo = None

    def _place_echo(self) -> None:
        if self._echo is not None and self.in_force is not None and is_elsewhere(self.in_force.error):
            self.error_log.addHandler(self._echo)

    def is_enabled(self, level: str) -> bool:
        return self.error_log.isEnabledFor(LEVELS[level])

    @property
    def access_enabled(self) -> bool:
        return any(not isinstance(handler, NullHandler) for handler in self.access_log.handlers)

    def trace(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.log(TRACE, msg, *args, **kwargs)

    def log(self, level: int | str, msg: object, *args: object, **kwargs: Any) -> None:
        number = LEVELS.get(level.lower(), INFO) if isinstance(level, str) else level
        self.error_log.log(number, msg, *args, **kwargs)

    def event(
        self, event: Event, *, level: int | None = None, exc_info: bool | BaseException = False, **about: object
    ) -> None:
        """Logs an event (events.py) that is `about` this: a structured record in the journal, a line anywhere else."""
        say(self.error_log, event, about, level, exc_info)

    def access(self, lines: Sequence[str]) -> None:
        """Writes access records. Where they go to one place of ours they go there together, as few writes."""
        logger = self.access_log
        handlers = logger.handlers
        if len(handlers) == 1 and not logger.filters and not logger.propagate and logger.isEnabledFor(INFO):
            handler = handlers[0]
            form = handler.formatter
            if isinstance(handler, Emitting) and isinstance(form, AccessFormatter) and not handler.filters:
                for piece in form.pieces(lines):
                    handler.say(piece, many=True)
                return
        for line in lines:
            logger.info("%s", line)

    def reopen_files(self) -> None:
        """Opens the log files again, after logrotate moved them (SIGUSR1). One that cannot be opened stays."""
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            if not isinstance(handler, FileHandler):
                continue
            try:
                stream = open_file(handler.baseFilename, getattr(handler, "owner", None))
            except OSError as error:
                self.error("cannot reopen the log file %s: %s", handler.baseFilename, error.strerror)
                continue
            old = handler.setStream(stream)
            if old is not None:
                old.close()

    def write(self, text: str) -> None:
        """Writes to the error log what is not a record, as it is: wsgi.errors.

        In the journal nothing of it but its beginning says a priority: the rest may be what a client sent.
        """
        for handler in self.error_log.handlers:
            stream = getattr(handler, "stream", None)
            if stream is not None and handler is not self._echo:
                to_journal = isinstance(handler.formatter, JournalFormatter)
                stream.write(text[:1] + records.harmless(text[1:]) if to_journal else text)
                stream.flush()

    def close_on_exec(self) -> None:
        """Kept for worker classes written for gunicorn: Python's descriptors are close-on-exec (PEP 446)."""


class _ServerLogger(logging.Logger):
    """A logger that an application's `dictConfig` may reconfigure and not switch off, as it does to all others that
    were there before (disable_existing_loggers): the reason why nothing works would go unsaid."""

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        return

    def removeHandler(self, hdlr: Handler) -> None:
        """Takes it out of the list: from Python 3.14 on, logging makes another list.

        Applications have this one for their own loggers, as in `app.logger.handlers = gunicorn_logger.handlers`.
        """
        if hdlr in self.handlers:
            self.handlers.remove(hdlr)


def _known_as(name: str, alias: str) -> logging.Logger:
    """The logger `name`, which `alias` is from now on as well, with the handlers that were added under that name.

    Both names keep an object of their own, since somebody may hold them; what the two are is the same.
    """
    logger, other = logging.getLogger(name), logging.getLogger(alias)
    if other.__dict__ is not logger.__dict__:
        for handler in other.handlers:
            logger.addHandler(handler)
        other.__dict__ = logger.__dict__
    _change(_ServerLogger, name, alias)
    return logger


def _change(kind: type[logging.Logger], *names: str) -> None:
    """Makes loggers that may be held by others behave in this way from now on."""
    for name in names:
        logging.getLogger(name).__class__ = kind


class Destinations(Immutable):
    """Where the records of one configuration go, opened."""

    error: Handler
    access: Handler
    level: str

    def close(self) -> None:
        for handler in (self.error, self.access):
            handler.end() if isinstance(handler, Emitting) else handler.close()


def _replace(logger: logging.Logger, handler: Handler) -> None:
    """Puts `handler` in the place of ours; those that config file or application added stay."""
    others = [each for each in logger.handlers if not isinstance(each, Emitting | NullHandler)]
    logger.handlers[:] = [*others, handler]
    logger.propagate = False
