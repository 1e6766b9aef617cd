"""What statsd is told is well-formed whatever happens, and whoever does not listen is not waited for."""

import logging
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdserve.access import statsd as module
from sdserve.access.log import AccessLog, form_of
from sdserve.access.measured import MeasuredRequests
from sdserve.access.statsd import UDP_BYTES, UNIX_BYTES, Lines, Statsd, Where, locate
from sdserve.config.address import statsd_address
from sdserve.config.convert import metric_prefix, metric_tags
from sdserve.errors import ConfigError
from sdserve.log import Logger
from tests.support import statsd as daemon
from tests.support.hostile import HOSTILE
from tests.support.statsd import Figure, read

GRAPHIC = [chr(c) for c in range(0x21, 0x7F)]
PREFIXES = st.text(st.sampled_from([c for c in GRAPHIC if c not in ":|@#"]), max_size=30)
TAGS = st.lists(st.text(st.sampled_from([c for c in GRAPHIC if c not in ",|#"]), min_size=1, max_size=20), max_size=5)
STATUSES = st.one_of(st.integers(100, 999).map(lambda code: f"{code} Said"), st.text(max_size=12), st.just(""))
SECONDS = st.floats(0, 1e7)


@pytest.mark.once
@settings(max_examples=50)
@given(PREFIXES, TAGS, st.lists(st.tuples(STATUSES, SECONDS), min_size=1, max_size=80))
def test_whatever_was_answered_can_be_read_back(prefix: str, tags: list[str], taken: list[tuple[str, float]]) -> None:
    sent = Lines(metric_prefix(prefix), metric_tags(tags)).requests(taken, UDP_BYTES)
    assert all(len(text) <= UDP_BYTES and text.endswith("\n") for text in sent)
    figures = [read(line) for text in sent for line in text.splitlines()]
    front = f"{prefix.rstrip('.')}." if prefix.rstrip(".") else ""
    assert {figure.tags for figure in figures} == {tuple(tags)}
    counts = {figure.name.removeprefix(front): figure.value for figure in figures if figure.kind == "c"}
    lasted = [figure for figure in figures if figure.kind == "ms"]
    assert counts.pop("gunicorn.requests") == len(taken)
    assert sum(counts.values()) == sum(s[:3].isdecimal() and s[:3].isascii() and len(s) >= 3 for s, _ in taken)
    assert {figure.name for figure in lasted} <= {f"{front}gunicorn.request.duration"}
    expected = [round(seconds * 1000, 3) for status, seconds in taken if status[:3] != "101"]
    assert [figure.value for figure in lasted] == pytest.approx(expected, abs=0.001)


@given(st.text(min_size=1), st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none(), st.binary()))
def test_what_an_application_logs_is_one_line_or_refused(name: str, value: object) -> None:
    try:
        line = Lines("shop", "env:live").figure(name, value, "gauge")
    except (ValueError, TypeError, OverflowError):
        return
    figure = read(line)
    assert (figure.kind, figure.tags) == ("g", ("env:live",))
    assert figure.value == pytest.approx(float(value), abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_name_that_came_from_a_client_begins_no_second_figure(text: bytes) -> None:
    figure = read(Lines().figure("pages." + text.decode("latin-1"), 1, "counter"))
    assert figure.name.startswith("pages.")
    assert (figure.value, figure.kind, figure.tags) == (1, "c", ())


@pytest.mark.parametrize(
    ("value", "kind", "line"),
    [
        (3, "gauge", "a:3|g"),
        ("+3", "gauge", "a:+3|g"),
        (-2.5, "gauge", "a:-2.5|g"),
        (True, "counter", "a:1|c"),
        (0.1 + 0.2, "histogram", "a:0.3|h"),
        (1e-9, "timer", "a:0|ms"),
    ],
)
def test_figures_as_statsd_writes_them(value: object, kind: str, line: str) -> None:
    assert Lines().figure("a", value, kind) == line


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "many", "1|c\na:2", [1], 1e300])
def test_what_is_not_a_figure_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        Lines().figure("a", value, "gauge")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:9125", ("localhost", 9125)),
        ("Stats", ("stats", 8125)),
        ("udp://stats:1", ("stats", 1)),
        ("[::1]:8126", ("::1", 8126)),
        ("::1", ("::1", 8125)),
        ("unix:///run/dsd", "/run/dsd"),
        ("unix:/run/dsd", "/run/dsd"),
        ("unix:@dsd", "@dsd"),
        ("unix:8125", ("unix", 8125)),
        ("", None),
        (None, None),
    ],
)
def test_addresses_are_written_as_for_gunicorn(text: object, address: object) -> None:
    assert statsd_address(text) == address


@pytest.mark.parametrize("text", [":8125", "h:0", "h:x", "fd://3", "h:1:2", "unix:", "unix:" + "x" * 108, 5, "a b:1"])
def test_other_addresses_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"statsd|port|descriptor|colons|path|string|address"):
        statsd_address(text)


@pytest.mark.parametrize("text", ["a\nb", "a b", "a|b", "a:b", "a#b", "a@b", "ä", "x" * 201, 3])
def test_a_prefix_cannot_end_a_name(text: object) -> None:
    with pytest.raises(ValueError, match=r"prefix|string"):
        metric_prefix(text)


@pytest.mark.parametrize("text", ["a:1|c", "a#b", "a b", "ü:1", "x" * 801, {"a": 1}])
def test_a_tag_cannot_end_a_line(text: object) -> None:
    with pytest.raises(ValueError, match=r"tags|list"):
        metric_tags(text)


def test_tags_are_written_by_commas_lines_or_as_a_list() -> None:
    assert metric_tags(" env:live, shop,") == metric_tags(["env:live", "shop"]) == "env:live,shop"
    assert metric_tags("") == ""


def test_a_host_that_is_not_there_is_told_with_the_way_out() -> None:
    host = "a" * 64  # longer than any name, so that no server is asked
    with pytest.raises(
        ConfigError, match=f"statsd_host: {host} cannot be resolved .*: give an IP address or unix://PATH"
    ):
        locate((host, 8125))


def test_a_name_means_ipv4_where_it_means_both() -> None:
    assert locate(("localhost", 8125)).address == ("127.0.0.1", 8125)
    assert locate(("::1", 8125)).family == socket.AF_INET6


class Told:
    """A client of statsd's with a clock of its own, and what it has said to the log."""

    def __init__(self, where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.said: list[str] = []
        monkeypatch.setattr(module, "monotonic", lambda: self.now)
        self.client = Statsd(where, Lines(), lambda text, *args: self.said.append(text % args))

    def tell(self, value: int) -> None:
        self.client.tell("a", value, "gauge")


def values(heard: list[Figure]) -> list[float]:
    return [figure.value for figure in heard]


def test_a_unix_socket_that_comes_back_is_found(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = short_path / "dsd"
    told = Told(locate(str(path)), monkeypatch)
    told.tell(1)
    told.tell(2)
    assert told.said == [f"statsd at unix:{path}: figures are lost until it can be reached: No such file or directory"]
    first = daemon.Statsd(path)
    told.tell(3)  # nobody looks again before a second has passed
    told.now += 1
    told.tell(4)
    assert values(first.hear()) == [4]
    first.close()
    path.unlink()
    second = daemon.Statsd(path)
    told.now += 1
    told.tell(5)
    assert values(second.hear()) == [5], "a daemon that was started again misses nothing"
    told.now += 5
    told.tell(6)
    assert told.said[1:] == [f"statsd at unix:{path}: figures are sent again, 3 datagrams were lost"]
    told.client.close()
    second.close()


def test_the_log_knows_why_also_where_it_is_too_early_for_another_socket(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = daemon.Statsd(short_path / "dsd")
    told = Told(locate(str(short_path / "dsd")), monkeypatch)
    told.tell(1)
    server.close()
    told.tell(2)
    [said] = told.said
    assert said.endswith("figures are lost until it can be reached: Connection refused")


def test_one_that_does_not_read_loses_and_keeps_nobody_waiting(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = short_path / "dsd"
    server = daemon.Statsd(path)
    told = Told(locate(str(path)), monkeypatch)
    sent = 0
    while not told.said:
        sent += 1
        told.tell(sent)
    told.tell(0)
    assert told.said == [f"statsd at unix:{path}: figures are lost until it can be reached: it does not read"]
    assert values(server.hear()) == [*range(1, sent)]
    told.tell(7)
    assert values(server.hear())[-1] == 7, "the same socket, at once"
    told.client.close()
    server.close()


def test_an_absent_daemon_of_udp_is_tried_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    server = daemon.Statsd()
    told = Told(locate(("127.0.0.1", server.sock.getsockname()[1])), monkeypatch)
    address = server.sock.getsockname()
    server.close()
    for value in range(5):
        told.tell(value)
    [first] = told.said
    assert first.endswith("figures are lost until it can be reached: Connection refused")
    server = daemon.Statsd()
    server.sock.close()
    server.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.sock.bind(address)
    told.now += 5
    told.tell(8)
    told.tell(9)
    assert values(server.hear()) == [8, 9]
    assert "figures are sent again" in told.said[-1]
    told.client.close()
    server.close()


def test_a_forked_process_has_a_socket_of_its_own_and_repeats_nothing() -> None:
    server = daemon.Statsd()
    client = Statsd(locate(("127.0.0.1", server.sock.getsockname()[1])), Lines(), print)
    client.tell("a", 1, "gauge")
    client.pending.append(("200 OK", 0.5))
    client.close()  # what a child does first
    client.flush()
    client.tell("a", 2, "gauge")
    assert values(server.hear()) == [1, 2]
    client.close()
    server.close()


def test_many_requests_are_few_datagrams_of_whole_lines(short_path: Path) -> None:
    for server, most in (daemon.Statsd(), UDP_BYTES), (daemon.Statsd(short_path / "dsd"), UNIX_BYTES):
        requests = MeasuredRequests(Statsd(locate(statsd_address(server.address) or ""), Lines("a" * 30), print), None)
        for number in range(100):
            requests.record({}, f"{200 + number % 2} OK", 5, 0.001)
        requests.flush()
        assert server.counts() == {
            f"{'a' * 30}.gunicorn.{name}": count
            for name, count in {
                "requests": 100,
                "request.duration": 100,
                "request.status.200": 50,
                "request.status.201": 50,
            }.items()
        }
        assert max(server.sizes) <= most
        assert len(server.sizes) <= 1 + 100 * 66 // most + 1
        server.close()


def test_a_websocket_counts_once_when_it_has_ended() -> None:
    """The access log has a record of its opening as well."""

    for logs in True, False:
        written: list[str] = []
        log = AccessLog(form_of("%(s)s %(X)s"), written.extend, pytest.fail) if logs else None
        server = daemon.Statsd()
        requests = MeasuredRequests(Statsd(locate(statsd_address(server.address) or ""), Lines(), print), log)
        if requests.reads:
            requests.record({}, "101 Switching Protocols", 0, 0.001, (), "+")
        requests.record({}, "101 Switching Protocols", 0, 3600.0, (), "-")
        requests.flush()
        assert server.counts() == {"gunicorn.requests": 1, "gunicorn.request.status.101": 1}
        server.close()
        assert written == (["101 +", "101 -"] if logs else [])


class Recorder:
    """The statsd of a logger."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object, str]] = []

    def tell(self, *figure: Any) -> None:
        self.told.append(figure)

    def close(self) -> None: ...


Measured = tuple[Logger, Recorder, Callable[[], list[str]]]


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Measured]:
    """A logger, what its statsd hears, and the texts that it has written."""
    log = Logger(str(tmp_path / "log"), None, "warning")
    recorder: Any = Recorder()
    log.measure(recorder)
    yield log, recorder, lambda: re.findall(r"^\[.*\] (.*)$", (tmp_path / "log").read_text(), re.MULTILINE)
    told = len(recorder.told)
    log.measure(None)
    log.error("told no more")
    assert len(recorder.told) == told
    Logger()


def test_records_are_counted_by_level(measured: Measured) -> None:
    log, recorder, written = measured
    log.critical("one")
    log.error("two")
    logging.getLogger("gunicorn.error").warning("three")
    log.info("not counted, and left out by the level")
    try:
        raise KeyError("x")
    except KeyError:
        log.exception("four")
    assert [name for name, _, _ in recorder.told] == [
        f"gunicorn.log.{level}" for level in ("critical", "error", "warning", "exception")
    ]
    assert {figure[1:] for figure in recorder.told} == {(1, "counter")}
    assert written() == ["one", "two", "three", "four"]


def test_figures_in_records_are_sent_and_a_record_without_a_text_is_not_written(
    measured: Measured,
) -> None:
    log, recorder, written = measured
    extra = {"metric": "shop.basket", "value": 3, "mtype": "gauge"}
    log.info("below the level", extra=extra)
    log.log("debug", "", extra=extra)
    logging.getLogger("gunicorn.error").warning("", extra=extra)
    logging.getLogger("sdserve.error").warning("with a text", extra=extra | {"value": 0})
    log.warning("no figure", extra={"metric": "a"})
    shop = ("shop.basket", 3, "gauge")
    counted = ("gunicorn.log.warning", 1, "counter")
    assert recorder.told == [shop, shop, counted, shop, counted, ("shop.basket", 0, "gauge"), counted]
    assert written() == ["with a text", "no figure"]


def test_a_record_still_says_where_it_was_logged(measured: Measured) -> None:
    log, _, _ = measured
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign, assignment]
    log.error_log.addHandler(handler)
    log.warning("here")
    log.exception("here")
    log.log("error", "by the log")
    log.error_log.removeHandler(handler)
    assert [record.funcName for record in seen[:2]] == ["test_a_record_still_says_where_it_was_logged"] * 2
    assert seen[2].funcName == "log"


def test_an_unknown_type_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(locate(("127.0.0.1", 9)), monkeypatch)
    for _ in range(3):
        told.client.tell("a", 1, "set")
    assert told.said == [
        "statsd: the metric 'a' is not sent: mtype 'set' is not one of gauge, counter, histogram, timer"
    ]
