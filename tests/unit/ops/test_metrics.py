"""Metrics and health as pure functions of what was read: the exposition, readiness, the agent's line."""

from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from sdserve.log import Logger
from sdserve.ops.exposition import Exposition
from sdserve.ops.families import FAMILIES, Scrape
from sdserve.ops.health import agent_line, readiness
from sdserve.ops.observer import Observer, Post
from sdserve.ops.view import View, Watched, WorkerView, lives, look
from sdserve.process.counter_memory import CounterMemory
from sdserve.process.counters import BUSY, EXITS, MASTER, OPEN, PID, STATE, STOPPED, THREADS, WANTED, WORDS
from sdserve.process.scoreboard import Scoreboard

KIND = "application/openmetrics-text"
OPENMETRICS = f"{KIND}; version=1.0.0"


class House:
    """The shared memory of a service with a master, and workers that tests describe."""

    def __init__(self) -> None:
        self.counters = CounterMemory.private()
        self.scoreboard = Scoreboard(8)
        self.master = self.counters.take()
        self.master.set(PID, 10)
        self.master.set(WANTED, 2)
        self.master.state = "serving"

    def worker(self, state: str = "serving", master: int = 10, **words: int) -> Any:
        cell = self.counters.take()
        cell.set(MASTER, master)
        cell.set(PID, 100 + cell.index)
        cell.state = state
        for name, value in words.items():
            cell.set({"threads": THREADS, "busy": BUSY, "open": OPEN, "stopped": STOPPED}[name], value)
        return cell

    def view(self, alive: bool = True) -> View:
        return look(Watched(self.master, self.counters, self.scoreboard), 50.0, lambda pid: alive)


def samples(scrape: Scrape) -> dict[tuple[str, str], float]:
    """What OpenMetrics's own parser reads, by name and the values of the labels."""
    kind, text = Exposition(lambda: scrape).text(OPENMETRICS)
    assert "openmetrics" in kind
    found = {}
    for family in text_string_to_metric_families(text.decode()):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            found[sample.name, ",".join(sample.labels.values())] = sample.value
    return found


def test_every_family_is_read_by_openmetrics_parser() -> None:
    house = House()
    house.worker(threads=4, busy=3, open=7)
    cell = house.worker("booting")
    cell.answered("200 OK", 0.004)
    cell.answered("503 Service Unavailable", 30.0)
    house.master.add(EXITS + 2)
    found = samples(Scrape(house.view(), (("unix:/run/s", 3, 128),), {101: 4096}))
    expected = {
        ("sdserve_requests_total", "2xx"): 1,
        ("sdserve_requests_total", "gone"): 0,
        ("sdserve_request_duration_seconds_bucket", "2xx,0.005"): 1,
        ("sdserve_request_duration_seconds_bucket", "5xx,10.0"): 0,
        ("sdserve_request_duration_seconds_bucket", "5xx,+Inf"): 1,
        ("sdserve_request_duration_seconds_sum", "5xx"): 30.0,
        ("sdserve_threads", ""): 4,
        ("sdserve_threads_busy", ""): 3,
        ("sdserve_connections", "idle"): 4,
        ("sdserve_workers", "serving"): 1,
        ("sdserve_workers", "booting"): 1,
        ("sdserve_worker_exits_total", "timeout"): 1,
        ("sdserve_listen_backlog", "unix:/run/s"): 3,
        ("sdserve_listen_backlog_limit", "unix:/run/s"): 128,
        ("sdserve_worker_pss_bytes", "0"): 4096,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["sdserve_requests_created", "2xx"] == house.counters.created


def test_what_is_not_known_is_not_told() -> None:
    found = samples(Scrape(House().view()))
    names = {name for name, _ in found}
    assert not names & {"sdserve_listen_backlog", "sdserve_listen_backlog_limit", "sdserve_worker_pss_bytes"}


def test_plain_prometheus_text_is_for_who_asks_for_nothing_else() -> None:
    kind, text = Exposition(lambda: Scrape(House().view())).text("")
    assert kind.startswith("text/plain") and b"# TYPE sdserve_requests_total counter" in text


PLAIN_0_0_4 = "text/plain; version=0.0.4; charset=utf-8"
VERSIONS = (
    "abc",
    "1.0.0-rc1",
    "2.rc",
    "1.0.",
    ".",
    "1..0",
    "\xff",
    "\xb9",
    '"1.0.0"',
    "1 0",
    "9" * 4000,
    "1" + ".1" * 2000,
)


@pytest.mark.parametrize("kind", [KIND, "text/plain"])
@pytest.mark.parametrize("version", VERSIONS)
def test_who_asks_for_a_version_that_is_none_gets_what_all_understand(kind: str, version: str) -> None:
    exposition = Exposition(lambda: Scrape(House().view()))
    for accept in (f"{kind};version={version}", f"{kind}; q=1;  version={version};escaping=dots"):
        assert exposition.text(accept)[0] == PLAIN_0_0_4
    for accept in (f"{kind};version={version}, {OPENMETRICS}", f"*/*;q=0.1,{OPENMETRICS},{kind};version={version}"):
        assert exposition.text(accept)[0].startswith(OPENMETRICS)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.1",
            "application/openmetrics-text",
        ),
        ("application/openmetrics-text", "application/openmetrics-text"),
        ("text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2", "text/plain"),
        ("text/html, version=abc", PLAIN_0_0_4),
        (";;;,,,=", PLAIN_0_0_4),
    ],
)
def test_other_scrapers_get_what_they_ask_for(accept: str, kind: str) -> None:
    assert Exposition(lambda: Scrape(House().view())).text(accept)[0].startswith(kind)


def test_failures_that_repeat_fill_no_log(capfd: pytest.CaptureFixture[str]) -> None:
    house = House()
    post = Post(Watched(house.master, house.counters, house.scoreboard), (), (), -1, Logger())
    observer = Observer(post, lambda: True)
    for _ in range(1000):
        try:
            raise RuntimeError("on purpose")
        except RuntimeError:
            observer.failed()
    written = capfd.readouterr().err
    assert 1 <= written.count("Exception in the observer") == written.count("RuntimeError: on purpose") <= 20


def test_names_and_labels_are_prometheuss() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.name.startswith("sdserve") and not family.name.endswith("_total")
        assert family.kind in ("counter", "gauge", "histogram", "info")
        assert family.help.endswith(".")


def test_workers_of_an_old_master_count_while_they_live() -> None:
    house = House()
    house.worker()
    house.worker("retiring", master=9)
    assert [(worker.ours, worker.state) for worker in house.view().workers] == [(True, "serving"), (False, "retiring")]
    assert len(house.view(alive=False).workers) == 1


def test_a_worker_that_was_stopped_says_so() -> None:
    house = House()
    house.worker(stopped=1)
    assert house.view().workers[0].state == "stopped"
    assert readiness(house.view()) == (False, "no worker serves: 1 stopped")


@pytest.mark.parametrize(
    ("state", "workers", "ready", "line"),
    [
        ("serving", ["serving", "serving"], True, b"up ready 100%\n"),
        ("serving", ["serving", "booting"], True, b"up ready 50%\n"),
        ("serving", ["serving"] * 3, True, b"up ready 100%\n"),  # in the middle of a reload
        ("serving", ["booting"], False, b"up drain\n"),
        ("serving", [], False, b"up drain\n"),
        ("draining", ["serving", "serving"], False, b"up drain\n"),
        ("stopping", ["retiring"], False, b"up drain\n"),
        ("starting", ["serving"], False, b"up drain\n"),
        ("", [], False, b"up drain\n"),
    ],
)
def test_who_is_ready(state: str, workers: list[str], ready: bool, line: bytes) -> None:
    house = House()
    house.master.state = state
    for each in workers:
        house.worker(each)
    assert readiness(house.view())[0] is ready
    assert agent_line(house.view()) == line


def test_one_thread_is_busy_while_its_worker_does_not_poll() -> None:
    house = House()
    house.worker(threads=1)
    house.scoreboard.at(0).begin(20.0)
    worker: WorkerView = house.view().workers[0]
    assert (worker.calls, worker.busy) == (1, 30.0)


@pytest.mark.parametrize("byte", [0xFF, 0x7F, 0x80, 0x01])
def test_memory_that_a_broken_worker_has_written_over_is_told_all_the_same(byte: int) -> None:
    house = House()
    for cell in (house.worker(), house.worker(master=9), house.master):
        for word in range(WORDS):
            if cell is not house.master or word not in (PID, STATE):
                cell.set(word, int.from_bytes(bytes([byte]) * 8, "little"))
    house.worker().set(PID, 2**64 - 1)
    view = look(Watched(house.master, house.counters, house.scoreboard), 50.0, lives)
    assert samples(Scrape(view))
    assert agent_line(view).startswith(b"up ")
