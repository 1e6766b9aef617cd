"""What is an answer of a master: all that masters say, of other versions too, and nothing else."""

import json
from typing import Any

import pytest

from sdserve.immutable import Immutable
from sdserve.ops.answers import fits, is_answer
from sdserve.ops.commands import COMMANDS
from sdserve.status import Status, WorkerStatus

WORKER = WorkerStatus(11, 0, 1, "serving", 5, None)
STATUS = Status("1.0", "Master", 10, "running", 1, 1, 0, 0, "", ("unix:/run/s",), (WORKER,))


def told(value: Any) -> Any:
    """As it comes from a master."""
    return json.loads(json.dumps(value))


def test_what_a_master_says_of_itself() -> None:
    answer = {"ok": True, "text": "Running", "status": told(STATUS.as_dict())}
    assert is_answer("status", answer)
    assert is_answer("status", answer | {"continues": True, "colour": "blue"}), "a later one may know more"
    assert not is_answer("status", answer | {"status": None})
    assert not is_answer("top", answer)


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_a_refusal_is_an_answer_to_everything(command: str) -> None:
    assert is_answer(command, {"ok": False, "text": "no", "error": "Refused"})
    assert is_answer(command, {"ok": False})
    assert not is_answer(command, {"ok": False, "text": 1})


class Later(Immutable):
    """A value to which a later version has added a field."""

    name: str
    number: int | None = 7


@pytest.mark.parametrize(
    ("value", "kind", "does"),
    [
        (1, int, True),
        (1.0, int, False),
        (True, int, False),
        (1, float, True),
        (1, bool, False),
        (True, bool, True),
        ("", str, True),
        (None, str, False),
        (None, str | None, True),
        (1 << 63, int, True),
        (10**400, int, False),
        (10**400, float, False),
        (float("nan"), float, False),
        (float("inf"), float, False),
        ({}, dict, True),
        ([], tuple[int, ...], True),
        ([1, "2"], tuple[int, ...], False),
        ({}, tuple[int, ...], False),
        ({"name": "a"}, Later, True),
        ({"name": "a", "number": None, "more": []}, Later, True),
        ({"name": "a", "number": "b"}, Later, False),
        ({"number": 1}, Later, False),
        ("name", Later, False),
        ([{"name": "a"}], tuple[Later, ...], True),
    ],
)
def test_what_fits_a_type(value: object, kind: Any, does: bool) -> None:
    assert fits(value, kind) is does
