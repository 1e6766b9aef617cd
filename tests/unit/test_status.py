"""The service in one line, and as data."""

import json

import pytest

from sdserve.status import Status, WorkerStatus

WORKERS = (
    WorkerStatus(pid=11, slot=0, generation=2, phase="serving", requests=5, busy=None),
    WorkerStatus(pid=12, slot=1, generation=2, phase="serving", requests=7, busy=1.5),
)
STATUS = Status(
    version="1.0",
    master="Master",
    pid=10,
    state="running",
    generation=2,
    wanted=2,
    successor=0,
    predecessor=0,
    trouble="",
    listeners=("http://127.0.0.1:80",),
    workers=WORKERS,
)


def test_all_is_well() -> None:
    assert STATUS.line() == "Running: 2 of 2 workers serving, generation 2"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"wanted": 1, "workers": WORKERS[:1]}, "Running: 1 of 1 worker serving, generation 2"),
        (
            {"state": "reloading", "workers": (*WORKERS, WORKERS[0].replace(phase="booting"))},
            "Reloading: 2 of 2 workers serving, generation 2; 1 booting",
        ),
        (
            {"workers": tuple(each.replace(phase="retiring") for each in WORKERS), "wanted": 0},
            "Running: 0 of 0 workers serving, generation 2; 2 retiring",
        ),
        ({"successor": 99}, "Running: 2 of 2 workers serving, generation 2; upgrade to pid 99 under way"),
        ({"predecessor": 9}, "Running: 2 of 2 workers serving, generation 2; beside the old master, pid 9"),
        ({"trouble": "reload failed: x"}, "Running: 2 of 2 workers serving, generation 2; reload failed: x"),
    ],
)
def test_what_happens_is_said(changes: dict[str, object], line: str) -> None:
    assert STATUS.replace(**changes).line() == line


def test_requests_do_not_change_the_line() -> None:
    busier = tuple(each.replace(requests=each.requests + 1, busy=2.0) for each in WORKERS)
    assert STATUS.replace(workers=busier).line() == STATUS.line()


def test_as_data() -> None:
    told = json.loads(json.dumps(STATUS.as_dict()))
    assert told["workers"][1] == {
        "pid": 12, "slot": 1, "generation": 2, "phase": "serving", "requests": 7, "busy": 1.5
    }  # fmt: skip
    assert told["listeners"] == ["http://127.0.0.1:80"]
