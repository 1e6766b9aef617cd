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
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING, FileHandler, Handler, LogRecord, NullHandler, StreamHandler
from typing import Any, TextIO

from sdserve.errors import ConfigError
from sdserve.immutable import Immutable
from sdserve.process import output
from sdserve.process.log_file import Owner, open_file
from sdserve.process.output import Output
from sdserve.systemd import journal, records

TRACE = 5
LEVELS = {"critical": CRITICAL, "error": ERROR, "warning": WARNING, "info": INFO, "debug": DEBUG, "trace": TRACE}
PRIORITIES = {CRITICAL: 2, ERROR: 3, WARNING: 4, INFO: 6, DEBUG: 7, TRACE: 7}  # syslog(3)

# Readable on dark and on light grounds; neighbours differ, and successive pids take neighbours.
COLOURS = (33, 208, 35, 170, 75, 172, 43, 204, 105, 142, 39, 202, 78, 135, 178, 31, 168, 70, 99, 214)

logging.addLevelName(TRACE, "TRACE")


class Logger:
    """The error log and the access log of one process tree.

    `errorlog` and `accesslog` are paths, `-` for stderr and stdout, None for no access log; `level` is a key of LEVELS;
    `owner` is the uid and the gid that files which root makes are given. Raises ConfigError when one cannot be opened.
    """

    def __init__(
        self, errorlog: str = "-", accesslog: str | None = None, level: str = "info", owner: Owner | None = None
    ) -> None:
        self.error_log = log = _known_as("sdserve.error", "gunicorn.error")
        self.critical, self.error, self.warning, self.info = log.critical, log.error, log.warning, log.info
        self.debug, self.exception = log.debug, log.exception
        self.access_log = _known_as("sdserve.access", "gunicorn.access")
        self.in_force: Destinations | None = None
        self._echo: _Echo | None = None
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
        error = _handler(errorlog, sys.stderr, owner)
        error.setFormatter(_formatter(error))
        access: Handler = NullHandler()
        if accesslog is not None:
            try:
                access = _handler(accesslog, sys.stdout, owner)
            except ConfigError:
                Destinations(error, access, level).close()
                raise
            access.setFormatter(_AccessFormatter(_is_journal(access)))
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

    def echo(self, wanted: bool) -> None:
        """Whether errors are told on standard error as well, where the error log is a file.

        They are until something is served: whoever starts a service looks there, and in the journal, for what is wrong.
        """
        if wanted and self._echo is None:
            self._echo = _Echo(sys.stderr)
            self._place_echo()
        elif not wanted and self._echo is not None:
            self.error_log.removeHandler(self._echo)
            self._echo.end()
            self._echo = None

    def _place_echo(self) -> None:
        if self._echo is not None and self.in_force is not None and _elsewhere(self.in_force.error):
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

    def access(self, lines: Sequence[str]) -> None:
        """Writes access records. Where they go to one place of ours they go there together, as few writes."""
        logger = self.access_log
        handlers = logger.handlers
        if len(handlers) == 1 and not logger.filters and not logger.propagate and logger.isEnabledFor(INFO):
            handler = handlers[0]
            form = handler.formatter
            if isinstance(handler, _Emitting) and isinstance(form, _AccessFormatter) and not handler.filters:
                for piece in form.pieces(lines):
                    handler.say(piece)
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
                to_journal = isinstance(handler.formatter, _JournalFormatter)
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


def _known_as(name: str, alias: str) -> logging.Logger:
    """The logger `name`, which `alias` is from now on as well, with the handlers that were added under that name.

    Both names keep an object of their own, since somebody may hold them; what the two are is the same.
    """
    logger, other = logging.getLogger(name), logging.getLogger(alias)
    if other.__dict__ is not logger.__dict__:
        for handler in other.handlers:
            logger.addHandler(handler)
        logger.__class__ = other.__class__ = _ServerLogger
        other.__dict__ = logger.__dict__
    return logger


class Destinations(Immutable):
    """Where the records of one configuration go, opened."""

    error: Handler
    access: Handler
    level: str

    def close(self) -> None:
        for handler in (self.error, self.access):
            handler.end() if isinstance(handler, _Emitting) else handler.close()


class _Emitting(StreamHandler[TextIO]):
    """Writes each record by one write(2), past the buffers of its stream, and loses what cannot be written."""

    def close(self) -> None:
        """Nothing: logging.config closes every handler that it finds, and an application means its own. See `end`."""

    def end(self) -> None:
        super().close()

    def emit(self, record: LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - its arguments do not fit, or cannot be shown
            text = f"a record cannot be formatted: {record.msg!r}\n{traceback.format_exc()}"
        self.say(text)

    def say(self, text: str) -> None:
        data = (text + self.terminator).encode(errors="backslashreplace")
        written = output.output_of(self.stream)
        if written is None:
            self._say_otherwise(text)
        elif written.put(data) and (lost := written.found_again()):
            logging.getLogger("sdserve.error").warning("%d writes to %s were lost: %s", lost[0], written.name, lost[1])

    def _say_otherwise(self, text: str) -> None:
        """To a stream that somebody else put in the place of a standard one."""
        try:
            self.stream.write(text + self.terminator)
            self.stream.flush()
        except Exception:  # noqa: BLE001 - whatever it raises, it decides nothing
            return


class _ConsoleHandler(_Emitting):
    """A standard stream; one that the interpreter made is written to by an Output of our own."""

    def __init__(self, stream: TextIO) -> None:
        self._made = _outputting(stream) if output.output_of(stream) is None else None
        super().__init__(self._made or stream)

    def end(self) -> None:
        super().end()
        if self._made is not None:
            self._made.close()


class _Echo(_ConsoleHandler):
    """Errors, beside a log file; silent from `end` on, whoever has made this handler one of their own meanwhile."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setLevel(ERROR)
        self.setFormatter(_formatter(self))

    def end(self) -> None:
        self.setLevel(sys.maxsize)
        super().end()


class _FileHandler(_Emitting, FileHandler):
    """A log file."""

    def __init__(self, path: str, owner: Owner | None) -> None:
        self.owner = owner
        super().__init__(path, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        return open_file(self.baseFilename, self.owner)


def _handler(where: str, stream: TextIO, owner: Owner | None) -> Handler:
    if where == "-":
        return _ConsoleHandler(stream)
    try:
        return _FileHandler(where, owner)
    except OSError as error:
        raise ConfigError(f"cannot open the log file {where}: {error.strerror}{_where_to_log()}") from error


def _elsewhere(handler: Handler) -> bool:
    """Whether this is a log file, and not standard error by another name."""
    if not isinstance(handler, _FileHandler):
        return False
    try:
        return not os.path.samestat(os.stat(handler.baseFilename), os.fstat(sys.stderr.fileno()))
    except (OSError, ValueError):  # standard error has no descriptor
        return True


def _where_to_log() -> str:
    """The place that a unit makes for log files (LogsDirectory=, systemd.exec(5)), if there is one."""
    place = os.environ.get("LOGS_DIRECTORY", "")
    return f"; this unit's place for log files is {place}" if place else ""


def _outputting(stream: TextIO) -> TextIO | None:
    try:
        return output.text(Output(stream.fileno(), getattr(stream, "name", "")))
    except (OSError, ValueError, AttributeError):  # it has no descriptor
        return None


def _replace(logger: logging.Logger, handler: Handler) -> None:
    """Puts `handler` in the place of ours; those that config file or application added stay."""
    for old in [each for each in logger.handlers if isinstance(each, _Emitting | NullHandler) and each is not handler]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.propagate = False


def _is_journal(handler: Handler) -> bool:
    return isinstance(handler, _ConsoleHandler) and journal.connected(handler.stream, os.environ)


def _formatter(handler: Handler) -> logging.Formatter:
    if _is_journal(handler):
        # journald notes the process that opened the stream, the master: the pid of a worker must be in the text.
        return _JournalFormatter("[%(process)d] %(message)s")
    coloured = isinstance(handler, _ConsoleHandler) and handler.stream.isatty() and "NO_COLOR" not in os.environ
    form = _TerminalFormatter if coloured else logging.Formatter
    return form("%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]")


class _TerminalFormatter(logging.Formatter):
    """Colours when tracing only: that is when the lines of many processes interleave and must be told apart."""

    def format(self, record: LogRecord) -> str:
        text = super().format(record)
        if not logging.getLogger(record.name).isEnabledFor(TRACE):
            return text
        colour = COLOURS[(record.process or 0) % len(COLOURS)]
        return f"\x1b[38;5;{colour}m{text}\x1b[0m"


class _JournalFormatter(logging.Formatter):
    def format(self, record: LogRecord) -> str:
        text = records.harmless(super().format(record))
        return records.prefixed(text, PRIORITIES.get(record.levelno, 6))


class _AccessFormatter(logging.Formatter):
    """Access records come whole; in the journal they get a priority of their own line each."""

    def __init__(self, to_journal: bool) -> None:
        super().__init__("%(message)s")
        self._to_journal = to_journal

    def format(self, record: LogRecord) -> str:
        text = super().format(record)
        return records.prefixed(text, PRIORITIES[INFO]) if self._to_journal else text

    def pieces(self, lines: Sequence[str]) -> Iterator[str]:
        """Many records, in pieces that a pipe takes whole: those of several workers are not mixed up."""
        mark = f"<{PRIORITIES[INFO]}>" if self._to_journal else ""
        together = max(1, output.ATOMIC // (max(map(len, lines)) + len(mark) + 1))
        for at in range(0, len(lines), together):
            yield mark + f"\n{mark}".join(lines[at : at + together])
