"""`sdservectl top`: what two looks at a service tell, and how it stands on a screen of any size."""

import pytest

from sdserve.ops.top import age, latency, lines, rates
from sdserve.process.counters import BOUNDS, BUCKETS, CLASSES
from sdserve.status import Answers, Backlog, Figures, SlowRequest, WorkerFigures

NOTHING = (0,) * BUCKETS


def worker(pid: int = 101, **how: object) -> WorkerFigures:
    usual: dict[str, object] = {
        "slot": pid - 101,
        "generation": 1,
        "state": "serving",
        "age": 3723.0,
        "requests": 10,
        "threads": 4,
        "calls": 1,
        "connections": 7,
        "busy": None,
    }
    return WorkerFigures(pid=pid, **(usual | how))  # type: ignore[arg-type]


def figures(
    at: float,
    *workers: WorkerFigures,
    trouble: str = "",
    slow: tuple[SlowRequest, ...] = (),
    **answered: tuple[int, ...],
) -> Figures:
    return Figures(
        at=at,
        state="serving",
        wanted=2,
        generation=1,
        bounds=BOUNDS,
        answers=tuple(Answers(code, answered.get(f"of_{code}", NOTHING)) for code in CLASSES),
        reloads=3,
        reloads_failed=1,
        upgrades=0,
        upgrades_failed=0,
        trouble=trouble,
        backlogs=(Backlog("unix:/run/s", 3, 128),),
        workers=workers,
        slow=slow,
    )


def buckets(**numbers: int) -> tuple[int, ...]:
    """So many in the buckets of these numbers."""
    return tuple(numbers.get(f"at_{number}", 0) for number in range(BUCKETS))


def test_rates_are_those_between_two_looks() -> None:
    before = figures(10.0, worker(), of_2xx=buckets(at_0=1000))
    now = figures(
        12.0,
        *(worker(requests=40), worker(102, requests=5), worker(103, requests=None)),
        of_2xx=buckets(at_0=1090, at_2=9),
        of_5xx=buckets(at_14=1),
    )
    found = rates(before, now)
    assert found is not None
    assert (found.seconds, found.all) == (2.0, 50.0)
    assert (found.by_code["2xx"], found.by_code["5xx"], found.by_code["4xx"]) == (49.5, 0.5, 0.0)
    assert (found.p50, found.p99) == (0.005, 0.025), "a thousand answers of before do not count"
    assert found.by_pid == {101: 15.0}, "of one that is new, or another master's, no rate is known"


def test_nothing_is_answered() -> None:
    found = rates(figures(1.0), figures(2.0))
    assert found is not None
    assert (found.all, found.p50, found.p99) == (0.0, None, None)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (figures(2.0), figures(2.0)),
        (figures(1.0, of_2xx=buckets(at_0=5)), figures(2.0)),
        (figures(1.0).replace(bounds=BOUNDS[:-1]), figures(2.0)),
        (figures(1.0).replace(bounds=BOUNDS[:-1]), figures(2.0).replace(bounds=BOUNDS[:-1])),
        (figures(1.0).replace(answers=()), figures(2.0)),
        (figures(1.0), figures(2.0, of_2xx=(1,))),
    ],
    ids=["no time", "another memory", "other bounds", "bounds that are not ours", "other classes", "other buckets"],
)
def test_looks_that_cannot_be_compared(before: Figures, now: Figures) -> None:
    assert rates(before, now) is None
    assert "requests/s -" in lines("", now, None, {}, (24, 80))


def test_a_worker_that_took_the_number_of_another_has_no_rate() -> None:
    found = rates(figures(1.0, worker(requests=9)), figures(2.0, worker(requests=1)))
    assert found is not None and not found.by_pid


def test_the_screen() -> None:
    before = figures(10.0, worker(), of_2xx=buckets(at_0=1000))
    now = figures(
        11.0,
        *(worker(requests=40), worker(102, state="stopped", calls=4, busy=12.34)),
        trouble="reload failed: no module named shop",
        of_2xx=buckets(at_0=1099, at_14=1),
    )
    assert lines("Running", now, rates(before, now), {101: 47_290_000, 102: None}, (24, 100)) == [
        "Running",
        "requests/s 100.0   p50 <= 5 ms   p99 <= 5 ms   2xx 100.0",
        "threads busy 5 of 8   connections 14   workers serving 1 of 2",
        "backlog 3 of 128 at unix:/run/s",
        "reloads 3 done, 1 failed   upgrades 0 done, 0 failed   last: reload failed: no module named shop",
        "",
        "SLOT      PID STATE         AGE     REQ/S     BUSY      FOR  CONNS      PSS",
        "   0      101 serving     1h02m      30.0      1/4        -      7    45.1M",
        "   1      102 stopped     1h02m         -      4/4   12.3 s      7        -",
    ]


def test_an_event_loop_has_no_threads() -> None:
    shown = lines("", figures(1.0, worker(threads=0, calls=12)), None, {}, (24, 80))
    assert any(line.startswith("requests in progress 12 ") for line in shown)
    assert shown[-1].split() == ["0", "101", "serving", "1h02m", "-", "12", "-", "7", "-"]


@pytest.mark.parametrize("height", [1, 2, 7, 8, 9, 11, 40])
@pytest.mark.parametrize("width", [1, 20, 80])
def test_it_fits_on_any_screen(height: int, width: int) -> None:
    crowd = [worker(101 + number, busy=float(number)) for number in range(30)]
    shown = lines("Running", figures(1.0, *crowd), None, {}, (height, width))
    assert len(shown) == min(height, 7 + 30)
    assert all(len(line) <= width for line in shown)


def test_who_is_busy_for_longest_is_shown_where_not_all_fit() -> None:
    crowd = [worker(101 + number, busy=float(number)) for number in range(30)]
    shown = lines("Running", figures(1.0, *crowd), None, {}, (10, 80))
    assert [line.split()[1] for line in shown[7:9]] == ["129", "130"]
    assert shown[9] == "28 more workers, busy for less long"


def slow(number: int, **how: object) -> SlowRequest:
    usual: dict[str, object] = {"slot": number, "seconds": 12.34, "answers": False, "request": f"GET /report/{number}"}
    return SlowRequest(pid=101 + number, **(usual | how))  # type: ignore[arg-type]


def test_requests_that_last_stand_below_the_workers() -> None:
    lasting = (slow(0), slow(1, request=""), slow(2, answers=True, request="GET /events", seconds=4000.0))
    shown = lines("Running", figures(1.0, worker(), slow=lasting), None, {}, (24, 80))
    assert shown[-5:] == [
        "",
        "SLOT      PID      FOR  REQUEST",
        "   0      101   12.3 s  GET /report/0",
        "   1      102   12.3 s  not said yet: see sdservectl stacks 1",
        "   2      103    1h06m  GET /events (answers)",
    ]


def test_many_requests_that_last_leave_room_for_workers() -> None:
    crowd = [worker(101 + number, busy=float(number)) for number in range(30)]
    lasting = tuple(slow(number) for number in range(20))
    shown = lines("Running", figures(1.0, *crowd, slow=lasting), None, {}, (19, 80))
    assert len(shown) == 19
    assert [line.split()[1] for line in shown[7:12]] == ["126", "127", "128", "129", "130"]
    assert shown[12] == "25 more workers, busy for less long"
    assert shown[15].endswith("GET /report/0") and shown[17].endswith("GET /report/2")
    assert shown[18] == "17 more slow requests"


@pytest.mark.parametrize("hostile", ["\x1b]0;mine\x07", "\x9b2J", "\r\n", "\x00", "\u202e"])
def test_nobody_but_us_commands_the_terminal(hostile: str) -> None:
    now = figures(1.0, worker(state=hostile), trouble=hostile, slow=(slow(0, request=hostile),))
    for line in lines(hostile, now, None, {}, (24, 80)):
        assert line.isascii() and line.isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0s"), (59.9, "59s"), (61.0, "1m01s"), (3600.0, "1h00m"), (90_000.0, "1d01h")]
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("bound", "text"), [(None, "-"), (0.005, "<= 5 ms"), (2.5, "<= 2.5 s"), (float("inf"), "> 10 s")]
)
def test_latencies(bound: float | None, text: str) -> None:
    assert latency(bound, BOUNDS) == text


def test_figures_of_a_later_version_are_read() -> None:
    now = figures(1.0, worker())
    told = now.as_dict()
    told["later"] = 1
    told["workers"] = [{**each, "later": 2} for each in told["workers"]]
    read = Figures.read(told)
    assert read == now
