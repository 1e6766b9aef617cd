"""Where log records go, and what they look like there.

A handler of ours loses what it cannot write (process/output.py). An event is a structured record where it goes to the
journal, and a line like any other where it does not, or where journald cannot be reached: never both.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING, FileHandler, Handler, LogRecord, StreamHandler
from typing import TextIO

from sdserve.errors import ConfigError, in_words
from sdserve.events import WRITES_LOST, Event
from sdserve.process import output
from sdserve.process.log_file import Owner, open_file
from sdserve.process.output import Output
from sdserve.systemd import journal, native, records

TRACE = 5
PRIORITIES = {CRITICAL: 2, ERROR: 3, WARNING: 4, INFO: 6, DEBUG: 7, TRACE: 7}  # syslog(3)
EVENT = "sdserve_event"  # attributes of a record that is an event: the event, and what it is about
ABOUT = "sdserve_about"
PREFIX = "SDSERVE_"  # of fields in the journal
LONGEST = 1000  # characters of a field; journalctl -o json leaves those of 4 KiB out unless it is told --all

# Readable on dark and on light grounds; neighbours differ, and successive pids take neighbours.
COLOURS = (33, 208, 35, 170, 75, 172, 43, 204, 105, 142, 39, 202, 78, 135, 178, 31, 168, 70, 99, 214)


def _nowhere(records: int) -> None:
    """Nobody counts."""


_count_lost: Callable[[int], None] = _nowhere


def count_lost(count: Callable[[int], None] = _nowhere) -> None:
    """Has `count` called with the number of records whenever this process has lost some."""
    global _count_lost
    _count_lost = count


class Emitting(StreamHandler[TextIO]):
    """Writes each record by one write(2), past the buffers of its stream, and loses what cannot be written."""

    def close(self) -> None:
        """Nothing: logging.config closes every handler that it finds, and an application means its own. See `end`."""

    def end(self) -> None:
        super().close()

    def emit(self, record: LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 - its arguments do not fit, or cannot be shown
            text = f"a record cannot be formatted: {record.msg!r}\n{_all_about(error, record)}"
        self.say(text)

    def say(self, text: str, many: bool = False) -> None:
        """Writes one record, or `many`, a line each."""
        data = (text + self.terminator).encode(errors="backslashreplace")
        written = output.output_of(self.stream)
        if written is None:
            self._say_otherwise(text)
        elif not written.put(data):
            self.acquire()  # threads write access records at the same time
            try:
                _count_lost(text.count("\n") + 1 if many else 1)
            finally:
                self.release()
        elif lost := written.found_again():
            about = {"COUNT": lost[0], "DESTINATION": written.name, "REASON": lost[1]}
            say(logging.getLogger("sdserve.error"), WRITES_LOST, about)

    def _say_otherwise(self, text: str) -> None:
        """To a stream that somebody else put in the place of a standard one."""
        try:
            self.stream.write(text + self.terminator)
            self.stream.flush()
        except Exception:  # noqa: BLE001 - whatever it raises, it decides nothing
            return


def _all_about(error: Exception, record: LogRecord) -> str:
    """The traceback of an error that `record` met with. Where none can be had, in words, with the error that it is of:
    Python loads what a traceback takes when it first writes one, and a disk or a descriptor may be wanting."""
    try:
        return traceback.format_exc()
    except Exception:  # noqa: BLE001 - as above
        of = record.exc_info[1] if record.exc_info else None
        return "\n".join(in_words(each) for each in (of, error) if each is not None)


class ConsoleHandler(Emitting):
    """A standard stream; one that the interpreter made is written to by an Output of our own."""

    def __init__(self, stream: TextIO) -> None:
        self._made = _outputting(stream) if output.output_of(stream) is None else None
        super().__init__(self._made or stream)

    def emit(self, record: LogRecord) -> None:
        """An event is a record of its own kind in the journal, if that can be reached."""
        event = getattr(record, EVENT, None)
        form = self.formatter
        if not (isinstance(event, Event) and isinstance(form, JournalFormatter) and form.tell(record, event)):
            super().emit(record)

    def end(self) -> None:
        super().end()
        if self._made is not None:
            self._made.close()


class Echo(ConsoleHandler):
    """Errors, beside a log file; silent from `end` on, whoever has made this handler one of their own meanwhile."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setLevel(ERROR)
        self.setFormatter(formatter_for(self))

    def end(self) -> None:
        self.setLevel(sys.maxsize)
        super().end()


class LogFileHandler(Emitting, FileHandler):
    """A log file."""

    def __init__(self, path: str, owner: Owner | None) -> None:
        self.owner = owner
        super().__init__(path, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        return open_file(self.baseFilename, self.owner)


def handler_for(where: str, stream: TextIO, owner: Owner | None) -> Handler:
    if where == "-":
        return ConsoleHandler(stream)
    try:
        return LogFileHandler(where, owner)
    except OSError as error:
        raise ConfigError(f"cannot open the log file {where}: {error.strerror}{_where_to_log()}") from error


def is_elsewhere(handler: Handler) -> bool:
    """Whether this is a log file, and not standard error by another name."""
    if not isinstance(handler, LogFileHandler):
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


def is_journal(handler: Handler) -> bool:
    return isinstance(handler, ConsoleHandler) and journal.connected(handler.stream, os.environ)


def formatter_for(handler: Handler) -> logging.Formatter:
    if is_journal(handler):
        return JournalFormatter()  # time, and who says it, journald knows by itself
    coloured = isinstance(handler, ConsoleHandler) and handler.stream.isatty() and "NO_COLOR" not in os.environ
    form = _TerminalFormatter if coloured else _PlainFormatter
    return form("%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]")


class _PlainFormatter(logging.Formatter):
    """What an exception says may be a client's: it commands no terminal, and begins no record of its own."""

    def format(self, record: LogRecord) -> str:
        return records.printable(super().format(record)).replace("\n[", "\n [")


class _TerminalFormatter(_PlainFormatter):
    """Colours when tracing only: that is when the lines of many processes interleave and must be told apart."""

    def format(self, record: LogRecord) -> str:
        text = super().format(record)
        if not logging.getLogger(record.name).isEnabledFor(TRACE):
            return text
        colour = COLOURS[(record.process or 0) % len(COLOURS)]
        return f"\x1b[38;5;{colour}m{text}\x1b[0m"


class JournalFormatter(logging.Formatter):
    """`<N>` in front of each line; events are structured records."""

    def format(self, record: LogRecord) -> str:
        text = records.harmless(super().format(record))
        return records.prefixed(text, PRIORITIES.get(record.levelno, 6))

    def tell(self, record: LogRecord, event: Event) -> bool:
        """Has journald make a structured record of an event, if it can be reached."""
        return native.send(self.structured(record, event), event.last)

    def structured(self, record: LogRecord, event: Event) -> bytes:
        """An event as journald's native protocol has it. What it is about is cut at a length, except for stacks."""
        about = getattr(record, ABOUT, {})
        fields = {
            "MESSAGE": _PLAIN.format(record),
            "MESSAGE_ID": event.id,
            "PRIORITY": str(PRIORITIES.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": journal.IDENTIFIER,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName,
            "SDSERVE_EVENT": event.name,
        }
        fields |= {PREFIX + name: _cut(name, str(value)) for name, value in about.items() if name.isupper()}
        return native.encode((name, records.harmless(value)) for name, value in fields.items())


_PLAIN = logging.Formatter("%(message)s")


def _cut(name: str, text: str) -> str:
    return text if len(text) <= LONGEST or name == "STACK" else text[:LONGEST] + "..."


def say(
    logger: logging.Logger,
    event: Event,
    about: dict[str, object],
    level: int | None = None,
    exc_info: bool | BaseException = False,
) -> None:
    """Logs an event, as if the caller's caller did."""
    args = (about,) if about else ()
    extra = {EVENT: event, ABOUT: about}
    logger.log(
        event.level if level is None else level, event.message, *args, exc_info=exc_info, extra=extra, stacklevel=3
    )


class AccessFormatter(logging.Formatter):
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
