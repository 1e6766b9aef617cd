"""The documentation says what the code says: generated parts are current, nothing is missing, links lead somewhere."""

import importlib.util
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from sdserve.arbiter.signals import QUEUED
from sdserve.config.gunicorn import ACCEPTED, REFUSED
from sdserve.config.hooks import HOOK_PARAMETERS
from sdserve.workers.told import HANDLED, IGNORED
from tests.unit.test_layers import LAYERS

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]*))?\)")
KINDS = ("tutorials", "how-to", "reference", "explanation", "measurements")


def page(name: str) -> str:
    return (DOCS / name).read_text()


@pytest.fixture(scope="module")
def generate() -> Any:
    """The module docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_parts_are_up_to_date(path: Path, generate: Any) -> None:
    text = path.read_text()
    assert text == generate.renewed(text), f"{path.name} is out of date: run python docs/generate.py"


def test_generated_pages_are_up_to_date(generate: Any) -> None:
    assert not [name for name, made in generate.WHOLE.items() if page(name) != made()], "run python docs/generate.py"


def test_every_page_is_of_one_kind_and_in_the_index() -> None:
    pages = {str(path.relative_to(DOCS)) for path in PAGES} - {"README.md"}
    assert {path.partition("/")[0] for path in pages} == set(KINDS)
    parts = re.split(r"^## .*$", page("README.md"), flags=re.MULTILINE)[1:]
    listed = [{target for target, _ in LINK.findall(part) if not target.startswith("../")} for part in parts]
    assert listed == [{path for path in pages if path.startswith(kind)} for kind in KINDS]


def test_every_generated_part_has_its_place(generate: Any) -> None:
    found = [name for path in PAGES for _, name, _ in generate.MARKED.findall(path.read_text())]
    assert sorted(found) == sorted(generate.PARTS)


def test_a_diagram_has_every_state_and_every_move(generate: Any) -> None:
    for table in (generate.MASTER, generate.WORKER, generate.UPGRADE):
        drawn = generate.diagram(table)
        for state, moves in table.items():
            assert str(state.value) in drawn
            for event, target in moves.items():
                arrow = "    {} --> {}: ".format(*(each.value.replace(" ", "_") for each in (state, target)))
                [line] = [line for line in drawn.splitlines() if line.startswith(arrow)]
                assert event.value in line.removeprefix(arrow).split(", ")


def test_the_list_of_files_is_complete() -> None:
    listed = re.findall(r"^\| `(sdserve/\S+\.py)` \| (.*) \|$", page("explanation/architecture.md"), re.MULTILINE)
    present = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "sdserve").rglob("*.py")}
    assert {path for path, _ in listed} == {path for path in present if not path.endswith("__init__.py")}
    assert not [path for path, purpose in listed if not purpose], "these files do not say what they are"


@pytest.mark.parametrize("walk", ["A request", "A reload", "An upgrade"])
def test_a_walk_names_each_room_once(walk: str) -> None:
    [text] = re.findall(rf"^\*\*{walk}\.\*\* (.*?)\n\n", page("explanation/architecture.md"), re.MULTILINE | re.DOTALL)
    rooms = re.findall(r"`([a-z/_]+\.py)`", text)
    assert len(rooms) > 8 and len(set(rooms)) == len(rooms)
    assert not [room for room in rooms if not (CHECKOUT / "sdserve" / room).is_file()]


def test_the_table_of_layers_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", page("explanation/architecture.md"), re.MULTILINE)
    found: dict[int, set[str]] = {}
    for number, parts in rows:
        names = {name.removesuffix(".py").rstrip("/") for name in re.findall(r"`([^`]+)`", parts)}
        found.setdefault(int(number), set()).update(names)
    assert found == {number: names - {"__init__"} for number, names in enumerate(LAYERS) if names != {"__main__"}}


def test_every_hook_is_on_its_page() -> None:
    text = page("reference/hooks.md")
    missing = [name for name, given in HOOK_PARAMETERS.items() if f"| `{name}({', '.join(given)})` |" not in text]
    assert not missing
    consequences = text.partition("## When a hook raises")[2].partition("\n## ")[0]
    assert not [name for name in HOOK_PARAMETERS if f"`{name}`" not in consequences]


def test_every_signal_is_on_its_page() -> None:
    master, _, worker = page("reference/signals.md").partition("## To a worker")
    assert not [each for each in QUEUED if not re.search(rf"^\|[^|]*\b{each.name[3:]}\b", master, re.MULTILINE)]
    names = {signal.Signals(signum).name.removeprefix("SIG") for signum in (*HANDLED, *IGNORED, signal.SIGABRT)}
    assert not [name for name in names if not re.search(rf"^\|[^|]*\b{name}\b", worker, re.MULTILINE)]


def test_every_setting_without_a_counterpart_is_in_a_table() -> None:
    text = page("reference/gunicorn.md")
    assert not [name for name in (*ACCEPTED, *REFUSED) if f"\n| `{name}` | " not in text]


def headings(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "path", [*PAGES, CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"], ids=lambda path: path.name
)
def test_links_lead_somewhere(path: Path) -> None:
    for target, heading in LINK.findall(path.read_text()):
        if "://" not in target:
            place = path.parent / target if target else path
            assert place.exists(), target
            assert not heading or heading in headings(place), f"{target}#{heading}"
