"""The table of events: each has an id of its own, is said somewhere, with all that belongs to it, and is explained."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdserve import events
from sdserve.events import EVENTS, Event

PACKAGE = Path(__file__).resolve().parents[2] / "sdserve"
NAMES = {name: value for name, value in vars(events).items() if isinstance(value, Event)}
EXPANDED = {"named": {"WORKER_PID", "SLOT", "GENERATION"}, "_state": {"WORKER_PID", "CONNECTIONS"}}
EXPANDED["about"] = {"CALL", "REQUEST", "CLIENT", "SECONDS", "WORKER_PID"}
OPTIONS = {"level", "exc_info"}


def said() -> Iterator[tuple[str, set[str]]]:
    """Each call of `log.event`: the event's name in the table, and what is said of it."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and node.args and ast.unparse(node.args[0]).startswith("events.")):
                continue
            about: set[str] = set()
            for keyword in node.keywords:
                if keyword.arg is None:
                    assert isinstance(keyword.value, ast.Call) and isinstance(keyword.value.func, ast.Attribute)
                    about |= EXPANDED[keyword.value.func.attr]
                else:
                    about.add(keyword.arg)
            yield ast.unparse(node.args[0]).removeprefix("events."), about - OPTIONS


def test_each_has_a_name_and_an_id_of_its_own() -> None:
    assert len(EVENTS) == len(NAMES)
    for own in ([event.name for event in EVENTS], [event.id for event in EVENTS]):
        assert max(Counter(own).values()) == 1
    assert all(re.fullmatch("[0-9a-f]{32}", event.id) for event in EVENTS)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", event.name) for event in EVENTS)
    for name, event in NAMES.items():
        assert name in (event.name.upper().replace("-", "_"), "NOT_KEPT")


def test_each_is_said_somewhere_with_all_that_belongs_to_it() -> None:
    calls = list(said())
    for name, about in calls:
        assert about == NAMES[name].parameters, name
    assert {name for name, _ in calls} | {"WRITES_LOST"} == NAMES.keys()


def entries() -> dict[str, str]:
    """What the catalogue says of each id."""
    _, *parts = re.split("^-- (.+)\n", (PACKAGE / "sdserve.catalog").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_catalogue_explains_each_event_and_nothing_else() -> None:
    assert list(entries()) == [event.id for event in EVENTS]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_the_catalogue_speaks_of_fields_that_are_there(event: Event) -> None:
    head, _, text = entries()[event.id].partition("\n\n")
    subject, defined, documented = head.splitlines()
    assert re.fullmatch("Subject: .+", subject) and text.strip()
    assert (defined, documented) == ("Defined-By: sdserve", "Documentation: man:sdserve(1)")
    known = {f"SDSERVE_{name}" for name in event.fields} | {"_SYSTEMD_UNIT"}
    assert set(re.findall("@([A-Z_]+)@", subject + text)) <= known
