"""What STATUS= says of traffic, and when the master looks: while there is some, and never when the service is idle."""

from pathlib import Path

import pytest

from sdserve.arbiter.lifecycle import Master
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.traffic import EVERY, LATEST, Traffic, between, line, watch_traffic
from sdserve.ops.view import View, WorkerView
from sdserve.process.counter_memory import CounterMemory
from sdserve.process.counters import BUCKETS, GROWING, Row, Totals
from sdserve.workers.words import BUSY
from tests.unit.arbiter.services import Unit
from tests.unit.arbiter.turning import Family

NOTHING = Traffic(requests=0, seconds=5.0, p99=None, busy=0, threads=8, calls=0, backlog=0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"requests": 6170, "p99": 0.025, "busy": 3, "calls": 3, "backlog": 12},
            "1,200 requests/s, 99 % within 25 ms, 3 of 8 threads busy, backlog 12",
        ),
        ({"requests": 3, "p99": float("inf")}, "0.6 requests/s, 99 % within more than 10 s, 0 of 8 threads busy"),
        ({"requests": 173, "p99": 2.5, "threads": 0, "calls": 7}, "35 requests/s, 99 % within 2.5 s, 7 in progress"),
        ({"busy": 8, "calls": 8, "backlog": None}, "0 requests/s, 8 of 8 threads busy"),
    ],
)
def test_traffic_in_words(changes: dict[str, object], text: str) -> None:
    assert NOTHING.replace(**changes).text() == text


def test_the_last_word_says_since_when() -> None:
    assert NOTHING.text("2026-11-22 07:00:00") == "no requests since 2026-11-22 07:00:00"
    waits = NOTHING.replace(threads=0, calls=2)
    assert waits.text("2026-11-22 07:00:00") == "no requests since 2026-11-22 07:00:00, 2 in progress"


def test_between_two_looks_only_what_is_new_counts() -> None:
    before = Row((1000, *(0,) * (BUCKETS - 1)), 1.0)
    after = before + Row((98, 0, 0, 0, 2, *(0,) * (BUCKETS - 5)), 0.3)
    worker = WorkerView(
        pid=1,
        slot=0,
        generation=1,
        state="serving",
        ours=True,
        age=1.0,
        threads=4,
        calls=3,
        connections=9,
        busy=0.1,
        requests=5,
    )
    totals = Totals((0,) * GROWING, {})
    view = View(
        state="serving", generation=1, wanted=1, began=0.0, created=0.0, workers=(worker, worker), totals=totals
    )
    traffic = between(before, after, 5.0, view, 7)
    assert traffic == Traffic(requests=100, seconds=5.0, p99=0.075, busy=6, threads=8, calls=6, backlog=7)


def test_looks_while_there_is_traffic_and_sleeps_afterwards(tmp_path: Path) -> None:
    now = 100.0
    loop = Loop(clock=lambda: now)
    unit = Unit(tmp_path, 0, loop=loop)
    service = unit.service
    service.count_in(CounterMemory.private())
    service.state = Master.RUNNING
    loop.turn()  # what `goal` asked for
    watch_traffic(service, unit.speaker, lambda ago: f"{ago:g} s ago")
    family = Family(booted=True, service=service)
    handle, worker = family.handle, family.worker
    worker.counters = service.counters.take()
    handle.show()
    assert loop.timeout() is None, "an idle service wakes up for nothing"

    def request(seconds: float = 0.0) -> None:
        if handle.cell.begin(now):
            family.theirs.send(BUSY)
            loop.turn()
        worker.counters.answered("200", seconds)
        handle.cell.end()

    def said() -> str:
        unit.speaker.report()
        return unit.messages()[-2].fields["STATUS"].rpartition("; ")[2]

    for _ in range(10):
        request(0.02)
    assert loop.timeout() == EVERY
    now += EVERY
    loop.turn()
    assert said() == "3.3 requests/s, 99 % within 25 ms"
    handle.cell.begin(now)
    now += EVERY
    loop.turn()
    assert said() == "0 requests/s"
    now += EVERY
    loop.turn()
    assert loop.timeout() == pytest.approx(2 * EVERY)
    assert 2 * EVERY <= LATEST
    handle.cell.end()
    now += 2 * EVERY
    loop.turn()
    assert said().startswith("no requests since ")
    heard = len(unit.messages())
    assert loop.timeout() is None, "an idle service wakes up for nothing, the deadline for a hung worker included"
    unit.speaker.report()
    assert len(unit.messages()) == heard + 1, "the mark alone"

    request()
    assert loop.timeout() == EVERY, "the worker has said that it is busy again"
    family.close()
    unit.close()


def test_who_was_never_asked_says_so(tmp_path: Path) -> None:
    """And not that it was asked when the machine began."""
    now = 100.0
    loop = Loop(clock=lambda: now)
    unit = Unit(tmp_path, 0, loop=loop)
    unit.service.count_in(CounterMemory.private())
    unit.service.state = Master.RUNNING
    loop.turn()
    watch_traffic(unit.service, unit.speaker, lambda ago: f"{ago:g} s ago")
    unit.speaker.on_main()
    now += EVERY
    loop.turn()
    unit.speaker.report()
    assert unit.messages()[-2].fields["STATUS"].endswith("; no requests yet")
    assert loop.timeout() is None
    unit.close()


def test_the_last_outcome_and_when(tmp_path: Path) -> None:
    unit = Unit(tmp_path, 0)
    service = unit.service
    service.state = Master.RUNNING
    plain = service.status_line()
    assert line(service, "noon", "") == plain
    service.came_to("reload succeeded")
    assert line(service, "noon", "2 requests/s") == f"{plain}; reload succeeded at noon; 2 requests/s"
    service.trouble = "reload failed: no such module"
    service.came_to(service.trouble)
    assert line(service, "noon", "") == f"{plain}; reload failed: no such module (noon)"
    service.state = Master.STOPPING
    assert line(service, "noon", "2 requests/s") == service.status_line()
    unit.close()
