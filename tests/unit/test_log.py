"""Loggers: the same record looks as its destination wants it, and log files can be moved away under them."""

import errno
import logging
import logging.config
import os
import re
import select
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO
from unicodedata import category

import pytest

from sdserve import events
from sdserve.errors import ConfigError
from sdserve.handlers import COLOURS, count_lost
from sdserve.log import Logger
from sdserve.systemd import native
from tests.support.hostile import HOSTILE
from tests.support.journald import Journald

ESCAPE = "\x1b"


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """The two loggers of the process are everybody's: leave them as they were."""
    both = [logging.getLogger(f"sdserve.{name}") for name in ("error", "access")]
    before = [(each.handlers[:], each.level, each.propagate) for each in both]
    for each in both:
        each.handlers[:] = []
    yield
    for each, (handlers, level, propagate) in zip(both, before, strict=True):
        for handler in each.handlers:
            handler.close()
        each.handlers[:] = handlers
        each.setLevel(level)
        each.propagate = propagate


class Destination:
    """A stream that takes the place of stderr and stdout while a logger is made."""

    def __init__(self, stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream = stream
        self._monkeypatch = monkeypatch

    def logger(self, errorlog: str = "-", accesslog: str | None = None, level: str = "info") -> Logger:
        self._monkeypatch.setattr(sys, "stderr", self.stream)
        self._monkeypatch.setattr(sys, "stdout", self.stream)
        return Logger(errorlog, accesslog, level)


class Terminal(Destination):
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.screen, line = os.openpty()
        super().__init__(os.fdopen(line, "w"), monkeypatch)

    def shown(self) -> str:
        """What stands on the screen, up to the end of a line."""
        text = b""
        while not text.endswith(b"\n"):
            assert select.select([self.screen], [], [], 15)[0], text
            text += os.read(self.screen, 65536)
        return text.decode().replace("\r\n", "\n")

    def close(self) -> None:
        self.stream.close()
        os.close(self.screen)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal(monkeypatch)
    yield terminal
    terminal.close()


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Destination]:
    """A file that JOURNAL_STREAM names: journald's stream, as far as anybody can tell."""
    with open(tmp_path / "journal", "w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        yield Destination(stream, monkeypatch)


def written(journal: Destination) -> str:
    return Path(journal.stream.name).read_text()


def a_failure(log: Logger) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("it broke")


class TestFile:
    def test_time_pid_and_level(self, tmp_path: Path) -> None:
        Logger(str(tmp_path / "log")).info("hello %s", "world")
        line = (tmp_path / "log").read_text()
        assert re.fullmatch(
            rf"\[\d{{4}}-\d\d-\d\d [\d:]{{8}} [+-]\d{{4}}\] \[{os.getpid()}\] \[INFO\] hello world\n", line
        )

    def test_never_coloured(self, tmp_path: Path, terminal: Terminal) -> None:
        log = terminal.logger(str(tmp_path / "log"), level="trace")
        log.trace("a state")
        a_failure(log)
        text = (tmp_path / "log").read_text()
        assert "[TRACE] a state" in text
        assert ESCAPE not in text

    def test_a_redirected_stderr_is_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with open(tmp_path / "log", "w") as stream:
            Destination(stream, monkeypatch).logger(level="trace").trace("a state")
        assert ESCAPE not in (tmp_path / "log").read_text()

    def test_one_that_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot open the log file .*/no/log: No such file or directory"):
            Logger(str(tmp_path / "no" / "log"))

    def test_the_place_that_a_unit_has_for_it_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOGS_DIRECTORY", "/var/log/shop")
        with pytest.raises(ConfigError, match=r"/no/log: .*; this unit's place for log files is /var/log/shop$"):
            Logger("/no/log")

    def test_a_configuration_that_fails_leaves_the_one_in_force(self, tmp_path: Path) -> None:
        log = Logger(str(tmp_path / "log"), level="warning")
        with pytest.raises(ConfigError):
            log.setup(str(tmp_path / "new"), str(tmp_path / "no" / "access"), "debug")
        log.debug("unheard")
        log.warning("heard")
        assert "heard" in (tmp_path / "log").read_text()
        assert "unheard" not in (tmp_path / "log").read_text()


class TestTerminal:
    def test_coloured_when_tracing(self, terminal: Terminal) -> None:
        terminal.logger(level="trace").info("hello")
        colour = COLOURS[os.getpid() % len(COLOURS)]
        text = terminal.shown()
        assert text.startswith(f"{ESCAPE}[38;5;{colour}m[")
        assert text.endswith(f"hello{ESCAPE}[0m\n")

    @pytest.mark.parametrize("level", ["debug", "info"])
    def test_plain_otherwise(self, terminal: Terminal, level: str) -> None:
        terminal.logger(level=level).info("hello")
        assert ESCAPE not in terminal.shown()

    def test_plain_where_colours_are_not_wanted(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        terminal.logger(level="trace").info("hello")
        assert ESCAPE not in terminal.shown()

    def test_each_process_in_its_own(self, terminal: Terminal) -> None:
        log = terminal.logger(level="trace")
        handler = log.error_log.handlers[0]
        record = log.error_log.makeRecord("sdserve.error", logging.INFO, "", 0, "hello", (), None)
        colours = []
        for pid in range(4711, 4711 + len(COLOURS)):
            record.process = pid
            colours.append(handler.format(record).partition("m")[0])
        assert len(set(colours)) == len(COLOURS)


class TestJournal:
    def test_a_priority_on_each_line_of_a_traceback(self, journal: Destination) -> None:
        a_failure(journal.logger())
        lines = written(journal).splitlines()
        assert lines[0] == "<3>it broke"
        assert lines[1] == "<3>Traceback (most recent call last):"
        assert lines[-2:] == ["<3>ValueError: two", "<3>lines"]
        assert all(line.startswith("<3>") for line in lines)

    def test_priorities(self, journal: Destination) -> None:
        log = journal.logger(level="trace")
        for level in ("trace", "debug", "info", "warning", "error", "critical"):
            log.log(level, "%s", level)
        marks = [line.partition(">")[0] for line in written(journal).splitlines()]
        assert marks == ["<7", "<7", "<6", "<4", "<3", "<2"]

    def test_no_time_no_pid_and_no_colour(self, journal: Destination) -> None:
        journal.logger(level="trace").info("hello")
        assert written(journal) == "<6>hello\n"

    def test_access_records_too(self, journal: Destination) -> None:
        journal.logger(accesslog="-").access_log.info("GET /")
        assert written(journal) == "<6>GET /\n"

    def test_each_of_many_access_records(self, journal: Destination) -> None:
        journal.logger(accesslog="-").access(["GET /a", "GET /b"])
        assert written(journal) == "<6>GET /a\n<6>GET /b\n"

    def test_a_file_beside_the_journal_gets_no_priorities(self, journal: Destination, tmp_path: Path) -> None:
        journal.logger(str(tmp_path / "log")).info("hello")
        assert "<6>" not in (tmp_path / "log").read_text()


class TestEvents:
    """In the journal they are structured records, anywhere else lines; never both, and never neither."""

    @pytest.fixture
    def journald(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journald]:
        journald = Journald(tmp_path / "socket")
        monkeypatch.setattr(native, "ADDRESS", journald.address)
        yield journald
        journald.close()

    def test_in_the_journal(self, journal: Destination, journald: Journald) -> None:
        journal.logger().event(events.RELOAD_FAILED, REASON="no application")
        [record] = journald.records()
        assert record.pop("CODE_FILE") == __file__ and record.pop("CODE_LINE").isdigit()
        assert record == {
            "MESSAGE": "Reload failed, the old workers serve on: no application",
            "MESSAGE_ID": "6ee63901621348099d69190221eea9c3",
            "PRIORITY": "3",
            "SYSLOG_IDENTIFIER": "sdserve",
            "CODE_FUNC": "test_in_the_journal",
            "SDSERVE_EVENT": "reload-failed",
            "SDSERVE_REASON": "no application",
        }
        assert written(journal) == ""

    def test_with_a_traceback(self, journal: Destination, journald: Journald) -> None:
        log = journal.logger()
        try:
            raise ValueError("two\nlines \x1b[31m")
        except ValueError as error:
            log.event(events.REQUEST_FAILED, exc_info=error, REQUEST="GET /", ERROR="ValueError")
        [record] = journald.records()
        lines = record["MESSAGE"].split("\n")
        assert lines[:2] == ["Error handling request GET /", "Traceback (most recent call last):"]
        assert lines[-2:] == ["ValueError: two", "lines \\x1b[31m"]

    def test_where_journald_does_not_hear_it_is_a_line(self, journal: Destination, journald: Journald) -> None:
        log = journal.logger()
        while native.send(b"MESSAGE=before\n"):
            pass
        log.event(events.PROMOTED)
        log.event(events.READY, level=logging.WARNING, STATUS="100 %s")
        assert written(journal) == "<6>Master has been promoted.\n<4>Ready: 100 %s\n"
        assert {record["MESSAGE"] for record in journald.records()} == {"before"}

    def test_in_a_file(self, journal: Destination, journald: Journald, tmp_path: Path) -> None:
        journal.logger(str(tmp_path / "log")).event(events.PROMOTED)
        assert (tmp_path / "log").read_text().endswith("[INFO] Master has been promoted.\n")
        assert not journald.records() and written(journal) == ""

    def test_below_the_level_they_are_nowhere(self, journal: Destination, journald: Journald) -> None:
        journal.logger(level="warning").event(events.PROMOTED)
        assert not journald.records() and written(journal) == ""

    @pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
    def test_what_a_client_sends_stays_in_its_field(
        self, journal: Destination, journald: Journald, value: bytes
    ) -> None:
        request = f"GET {value.decode('latin-1')}"
        about: dict[str, Any] = {"CALL": f"{request} has run for 30.1 s", "REQUEST": request, "CLIENT": "1.2.3.4"}
        journal.logger().event(events.REQUEST_CUT, REASON="it is over", WORKER_PID=7, SECONDS=30.1, **about)
        [record] = journald.records()
        assert [name for name in record if name.startswith("SDSERVE_")] == [
            *("SDSERVE_EVENT", "SDSERVE_REASON", "SDSERVE_WORKER_PID", "SDSERVE_SECONDS"),
            *("SDSERVE_CALL", "SDSERVE_REQUEST", "SDSERVE_CLIENT"),
        ]
        assert record["PRIORITY"] == "4" and record["SDSERVE_EVENT"] == "request-cut"
        assert record["SDSERVE_REQUEST"].startswith("GET ") and len(record["SDSERVE_REQUEST"]) < 4096
        controls = {char for text in record.values() for char in text if category(char) in ("Cc", "Cs", "Zl", "Zp")}
        assert controls <= {"\n", "\t"}


def test_levels(tmp_path: Path) -> None:
    log = Logger(str(tmp_path / "log"), level="debug")
    assert log.is_enabled("debug") and not log.is_enabled("trace")
    for name in ("trace", "debug", "info", "warning", "error", "critical"):
        getattr(log, name)("said by %s", name)
    log.log(logging.ERROR, "by number")
    log.log("no such level", "as info")
    text = (tmp_path / "log").read_text()
    assert "said by trace" not in text
    assert [line.split("] ")[2] for line in text.splitlines()] == [
        "[DEBUG", "[INFO", "[WARNING", "[ERROR", "[CRITICAL", "[ERROR", "[INFO"
    ]  # fmt: skip


def test_access_records_come_whole_or_not_at_all(tmp_path: Path) -> None:
    log = Logger(str(tmp_path / "log"))
    assert not log.access_enabled
    log.setup(str(tmp_path / "log"), str(tmp_path / "access"), "critical")
    assert log.access_enabled
    log.access_log.info("GET / %s")
    assert (tmp_path / "access").read_text() == "GET / %s\n"
    assert (tmp_path / "log").read_text() == ""


class TestReopen:
    def test_after_logrotate(self, tmp_path: Path) -> None:
        log = Logger(str(tmp_path / "log"), str(tmp_path / "access"))
        log.info("before")
        log.access_log.info("before")
        for name in ("log", "access"):
            (tmp_path / name).rename(tmp_path / f"{name}.1")
        log.info("still the old")
        log.reopen_files()
        log.info("after")
        log.access_log.info("after")
        assert "still the old" in (tmp_path / "log.1").read_text()
        assert "after" in (tmp_path / "log").read_text()
        assert (tmp_path / "access").read_text() == "after\n"

    def test_one_that_cannot_be_opened_stays(self, tmp_path: Path) -> None:
        (tmp_path / "logs").mkdir()
        log = Logger(str(tmp_path / "logs" / "log"))
        (tmp_path / "logs").rename(tmp_path / "moved")
        log.reopen_files()
        log.info("after")
        text = (tmp_path / "moved" / "log").read_text()
        assert "cannot reopen the log file" in text
        assert "after" in text

    def test_streams_are_left_alone(self, terminal: Terminal) -> None:
        log = terminal.logger()
        stream: TextIO = log.error_log.handlers[0].stream  # type: ignore[attr-defined]
        log.reopen_files()
        assert log.error_log.handlers[0].stream is stream  # type: ignore[attr-defined]
        assert not stream.closed


def test_gunicorns_names_are_names_of_the_same_loggers(tmp_path: Path) -> None:
    """As Flask applications do it: their handlers are the server's, and so is their level."""
    log = Logger(str(tmp_path / "log"))
    server, application = logging.getLogger("gunicorn.error"), logging.getLogger("shop")
    application.handlers, before = server.handlers, application.handlers
    application.setLevel(server.level)
    try:
        application.info("an order of %d", 3)
        application.debug("its basket")
        log.setup(str(tmp_path / "other"), None, "debug")
        application.info("after a reload")
        server.debug("by the other name")
    finally:
        application.handlers = before
        application.setLevel(logging.NOTSET)
    first, second = (tmp_path / "log").read_text(), (tmp_path / "other").read_text()
    assert re.search(r"^\[[^]]+\] \[\d+\] \[INFO\] an order of 3$", first, re.MULTILINE)
    assert "basket" not in first
    assert [line.rpartition("] ")[2] for line in second.splitlines()] == ["after a reload", "by the other name"]


def test_a_log_file_holds_no_record_and_no_escape_sequence_of_a_clients(tmp_path: Path) -> None:
    """What a client said is in an exception, as applications like to say it."""
    log = Logger(str(tmp_path / "errors"))
    try:
        raise ValueError("no such page: \x1b]0;title\x07\x9b31m\r\n[2026-01-01 00:00:00 +0000] [1] [INFO] forged")
    except ValueError:
        log.exception("it failed")
    text = (tmp_path / "errors").read_text()
    assert all(character.isprintable() or character == "\n" for character in text)
    assert text.count("\n[") == 0, "one record"
    assert r"\x1b]0;title" in text
    assert "Traceback (most recent call last):\n" in text


def test_handlers_that_others_added_stay(tmp_path: Path) -> None:
    log = Logger(str(tmp_path / "log"))
    other = logging.FileHandler(tmp_path / "other")
    logging.getLogger("gunicorn.error").addHandler(other)
    log.setup(str(tmp_path / "log"), None, "info")
    log.info("twice")
    assert "twice" in (tmp_path / "log").read_text()
    assert "twice" in (tmp_path / "other").read_text()


def test_an_application_cannot_switch_the_log_off(tmp_path: Path) -> None:
    log = Logger(str(tmp_path / "log"))
    logging.config.dictConfig({"version": 1, "loggers": {"shop": {"level": "INFO"}}})
    log.info("still here")
    assert "still here" in (tmp_path / "log").read_text()


def test_an_application_may_send_the_log_elsewhere(tmp_path: Path) -> None:
    log = Logger(str(tmp_path / "log"))
    handlers = {"file": {"class": "logging.FileHandler", "filename": str(tmp_path / "other")}}
    loggers = {"gunicorn.error": {"handlers": ["file"], "level": "ERROR"}}
    logging.config.dictConfig({"version": 1, "handlers": handlers, "loggers": loggers})
    log.info("less")
    log.error("elsewhere")
    assert (tmp_path / "other").read_text() == "elsewhere\n"
    assert (tmp_path / "log").read_text() == ""


def test_errors_are_told_on_standard_error_too_until_something_is_served(tmp_path: Path, journal: Destination) -> None:
    log = journal.logger(str(tmp_path / "errors"))
    log.echo(True)
    log.info("starting")
    log.error("no application")
    log.write("from the application")
    library = logging.getLogger("of the application")
    library.handlers = log.error_log.handlers[:]
    log.setup(str(tmp_path / "errors"), None, "info")
    log.error("no worker")
    log.echo(False)
    log.error("a request")
    library.error("a request")
    log.setup(str(tmp_path / "errors"), None, "info")
    log.error("another")
    assert written(journal).splitlines() == ["<3>no application", "<3>no worker"]
    assert (tmp_path / "errors").read_text().count("no application") == 1


def test_a_log_file_that_is_standard_error_is_told_once(journal: Destination) -> None:
    log = journal.logger(journal.stream.name)
    log.echo(True)
    log.error("no application")
    assert written(journal).count("no application") == 1


def test_access_records_that_come_together_are_written_together_in_pieces_that_a_pipe_takes_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Logger(str(tmp_path / "log"), str(tmp_path / "access"))
    said: list[str] = []
    monkeypatch.setattr(type(log.access_log.handlers[0]), "say", lambda self, text, many: said.append(text))
    log.access([f"{number:0100}" for number in range(100)])
    assert max(map(len, said)) < 4096 and len(said) == 3
    assert "\n".join(said).split("\n") == [f"{number:0100}" for number in range(100)]


def test_somebody_elses_handler_gets_each_access_record(tmp_path: Path) -> None:
    log = Logger(str(tmp_path / "log"), str(tmp_path / "access"))
    other = logging.FileHandler(tmp_path / "other")
    log.access_log.addHandler(other)
    try:
        log.access(["GET /a%s", "GET /b"])
    finally:
        log.access_log.removeHandler(other)
        other.close()
    assert (tmp_path / "access").read_text() == (tmp_path / "other").read_text() == "GET /a%s\nGET /b\n"


def test_records_that_are_lost_are_counted() -> None:
    """One of several lines is one, and of access records that go together each."""
    lost: list[int] = []
    log = Logger("/dev/full", "/dev/full")
    count_lost(lost.append)
    log.info("one\nof two lines")
    log.access(["GET /a", "GET /b"])
    count_lost()
    assert lost == [1, 2]


def test_a_record_whose_traceback_cannot_be_had_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python loads late what some of it takes: without a descriptor that is not there."""

    def no_room(*args: object, **options: object) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    log = Logger(str(tmp_path / "log"))
    with monkeypatch.context() as patched:
        patched.setattr(traceback, "print_exception", no_room)
        patched.setattr(traceback, "format_exc", no_room)
        try:
            raise ValueError("the shop is closed")
        except ValueError:
            log.exception("No order of %s", "tea")
    assert (tmp_path / "log").read_text().splitlines() == [
        "a record cannot be formatted: 'No order of %s'",
        "ValueError: the shop is closed",
        "OSError: [Errno 24] Too many open files; see LimitNOFILE=",
    ]
