"""Writes what follows from the code: the man pages, reference/settings.md, parts of other pages, and units/.

`python docs/generate.py` brings all of it up to date; tests/unit/test_docs.py fails while something is not. A generated
part stands between `<!-- generated: NAME -->` and `<!-- end -->`, and PARTS says what NAME is made of.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import partial
from pathlib import Path

DOCS = Path(__file__).resolve().parent
CHECKOUT = DOCS.parent
PACKAGE = CHECKOUT / "sdserve"
sys.path.insert(0, str(CHECKOUT))

from sdserve import __version__, ctl  # noqa: E402 - of this checkout
from sdserve.access.structured import FIELDS  # noqa: E402
from sdserve.arbiter.lifecycle import MASTER, UPGRADE, WORKER, Table  # noqa: E402 - of this checkout
from sdserve.config import render  # noqa: E402
from sdserve.config.gunicorn import ACCEPTED, REFUSED  # noqa: E402
from sdserve.config.uvicorn import OPTIONS  # noqa: E402
from sdserve.ctl.parser import SOCKET, TIMEOUT, UNIT, USER  # noqa: E402
from sdserve.events import EVENTS  # noqa: E402
from sdserve.handlers import PRIORITIES  # noqa: E402
from sdserve.ops import interface, units  # noqa: E402
from sdserve.ops.commands import COMMANDS, FAILURES, Command, Field  # noqa: E402
from sdserve.ops.families import FAMILIES  # noqa: E402
from sdserve.ops.happenings import MEANINGS  # noqa: E402
from tests.support import house  # noqa: E402

# From the top to the bottom: the layer, and the files or packages of it.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Layer 7, commands", ("__main__.py", "cli.py", "ctl")),
    ("Layer 6, the master", ("arbiter",)),
    ("Layer 5, the workers", ("workers",)),
    ("Layer 5, the operator's tools", ("ops",)),
    ("Layer 4, between HTTP and application", ("gateway",)),
    ("Layer 3, loggers", ("log.py", "rate_limit.py")),
    ("Layer 2, log records", ("handlers.py", "access")),
    ("Layer 1, configuration", ("config",)),
    ("Layer 1, systemd", ("systemd",)),
    ("Layer 1, the operating system", ("process",)),
    ("Layer 1, HTTP", ("http",)),
    ("Layer 1, what the service is doing", ("status.py", "events.py")),
    ("Layer 1, what no service may do", ("greenlets.py",)),
    ("Layer 0, words for all", ("errors.py", "immutable.py", "descriptor.py")),
)
MARKED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def diagram(table: Table[Enum, Enum]) -> str:
    """A state machine as a Mermaid diagram: the first state is where it begins, states without a way out end it."""
    states = list(table)
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f'    state "{state.value}" as {_id(state)}' for state in states if _id(state) != state.value]
    lines.append(f"    [*] --> {_id(states[0])}")
    for state in states:
        arrows: dict[Enum, list[str]] = {}
        for event, target in table[state].items():
            arrows.setdefault(target, []).append(str(event.value))
        lines += [f"    {_id(state)} --> {_id(target)}: {', '.join(events)}" for target, events in arrows.items()]
        if not arrows:
            lines.append(f"    {_id(state)} --> [*]")
    return "\n".join([*lines, "```"])


def _id(state: Enum) -> str:
    return str(state.value).replace(" ", "_")


def files() -> str:
    """Every file of the package with the first line of its docstring, by layer."""
    lines: list[str] = []
    for title, parts in LAYERS:
        lines += [f"### {title}", "", "| file | what it is |", "|---|---|"]
        lines += [f"| `{path.relative_to(CHECKOUT)}` | {purpose(path)} |" for path in _files_of(parts)]
        lines.append("")
    return "\n".join(lines).rstrip()


def _files_of(parts: tuple[str, ...]) -> Iterator[Path]:
    for part in parts:
        place = CHECKOUT / "sdserve" / part
        yield from [place] if place.is_file() else sorted(p for p in place.rglob("*.py") if p.name != "__init__.py")


PLACES = {
    part.removesuffix(".py"): place
    for place, parts in {
        "commands": ("__main__.py", "cli.py", "ctl"),
        "logs": ("log.py", "rate_limit.py", "handlers.py", "access"),
        "words": ("errors.py", "status.py", "events.py"),
        **{part: (part,) for part in ("arbiter", "workers", "gateway", "config", "systemd", "process", "http", "ops")},
    }.items()
    for part in parts
}


def map_of_the_house() -> str:
    """The packages with their sizes, and who imports whom; an arrow that another path makes superfluous is left out."""
    modules = {name: path for name, path in house.modules(PACKAGE).items() if name.count(".") and _place(name)}
    arrows: dict[str, set[str]] = {place: set() for place in PLACES.values()}
    for name, others in house.graph(PACKAGE).items():
        if name in modules:
            arrows[_place(name)] |= {_place(other) for other in others if other in modules} - {_place(name)}
    lines = ["```mermaid", "flowchart TD"]
    for place in arrows:
        files = [path for name, path in modules.items() if _place(name) == place]
        lines.append(f'    {place}["{place}: {len(files)} files, {_hundreds(files)} lines"]')
    for place, others in arrows.items():
        by_way = set().union(*(house.reached(arrows, other) for other in others))
        lines += [f"    {place} --> {other}" for other in sorted(others - by_way)]
    return "\n".join([*lines, "```"])


def _place(name: str) -> str:
    return PLACES.get(name.split(".")[1], "")


def _hundreds(files: Iterable[Path]) -> str:
    return f"{round(sum(map(house.lines, files)), -2):,}"


def measures() -> str:
    """How large the house is, and what is not in order yet."""
    modules = house.modules(PACKAGE)
    circles = house.circles(house.graph(PACKAGE))
    length, function, where = max(
        (length, function, path.relative_to(CHECKOUT))
        for path in modules.values()
        for function, length in house.functions(path).items()
    )
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| files | {len(modules)} |",
            f"| lines | {_hundreds(modules.values())} |",
            f"| circles of files that need each other | {len(circles)}, of {sum(map(len, circles))} files |",
            f"| the longest function | {length} lines, `{function}` in `{where}` |",
        ]
    )


def levels() -> str:
    """The rooms of the arbiter from the top to the bottom: each file knows only files of the lines below its own."""
    package = "sdserve.arbiter"
    graph = {name: {o for o in others if o != package} for name, others in house.graph(PACKAGE / "arbiter").items()}
    graph.pop(package, None)
    level: dict[str, int] = {}
    while len(level) < len(graph):
        for name, others in graph.items():
            if name not in level and all(other in level for other in others):
                level[name] = 1 + max((level[other] for other in others), default=-1)
    lines = ["| from the top to the bottom |", "|---|"]
    for number in sorted(set(level.values()), reverse=True):
        names = sorted(name.removeprefix(f"{package}.") for name in level if level[name] == number)
        lines.append(f"| {', '.join(names)} |")
    return "\n".join(lines)


def purpose(path: Path) -> str:
    """The first line of a file's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.partition("\n")[0].replace("|", "\\|")


def families() -> str:
    """Every metric, from what the exposition is made of."""
    lines = ["| metric | kind | labels | what it is |", "|---|---|---|---|"]
    for family in FAMILIES:
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.kind, "")
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{name}` | {family.kind} | {labels} | {family.help} |")
    return "\n".join(lines)


def refused() -> str:
    """gunicorn's settings that are refused, with what to do instead."""
    lines = ["| gunicorn's setting | instead |", "|---|---|"]
    lines += [f"| `{name}` | {instead} |" for name, (instead, _) in sorted(REFUSED.items())]
    return "\n".join(lines)


def accepted() -> str:
    """gunicorn's settings that are accepted and do nothing, with what holds instead."""
    lines = ["| gunicorn's setting | what holds here |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, (meaning, _) in sorted(ACCEPTED.items())]
    return "\n".join(lines)


def of_uvicorn() -> str:
    """uvicorn's options, with ours."""
    return "\n".join(["| uvicorn | sdserve |", "|---|---|", *(f"| {theirs} | {ours} |" for theirs, ours in OPTIONS)])


def commands() -> str:
    """sdservectl's commands, with what they take and how they fail."""
    lines = []
    for command in _shown():
        lines += [f"### `sdservectl {command.name}{_arguments(command)}`", "", f"{_sentence(command.about)}", ""]
        if command.details:
            lines += [command.details, ""]
        options = [field for field in (*command.takes, *command.shows) if field.about]
        lines += [f"- `{_spelled(field)}`: {field.about}" for field in options]
        lines += [""] if options else []
        if command.fails:
            lines += [f"Fails with {', '.join(f'`{name}`' for name in command.fails)}.", ""]
    return "\n".join(lines).rstrip()


def failures() -> str:
    """How commands fail."""
    lines = ["| failure | meaning |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{each.name}` | {each.about} |" for each in FAILURES)])


def exit_codes() -> str:
    """sdservectl's exit codes."""
    lines = ["| exit code | meaning |", "|---|---|"]
    return "\n".join([*lines, *(f"| {code} | {meaning} |" for code, meaning in ctl.EXIT_CODES.items())])


def _shown() -> list[Command]:
    return [command for command in COMMANDS if not command.hidden]


def _arguments(command: Command) -> str:
    found = [field for field in command.takes if not field.flag]
    return "".join(f" [{field.metavar}]" if field.optional else f" {field.metavar}" for field in found)


def _spelled(field: Field) -> str:
    return " ".join(filter(None, (field.flag, field.metavar)))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def events() -> str:
    """The events with their ids, priorities and fields, and the subjects that the catalogue gives them."""
    subjects = dict(re.findall("^-- (\\w+)\nSubject: (.+)$", (PACKAGE / "sdserve.catalog").read_text(), re.MULTILINE))
    lines = ["| event | priority | what has happened | fields | MESSAGE_ID |", "|---|---|---|---|---|"]
    for event in EVENTS:
        subject = re.sub(r"@(?:SDSERVE_)?(\w+)@", r"*\1*", subjects[event.id])
        fields = ", ".join(f"`{name}`" for name in event.fields)
        priority = PRIORITIES[event.level]
        lines.append(f"| `{event.name}` | {priority} | {subject} | {fields} | `{event.id}` |")
    return "\n".join(lines)


def access_fields() -> str:
    """The fields of an access record in JSON and logfmt."""
    return "\n".join(
        ["| field | what it is |", "|---|---|", *(f"| `{name}` | {text} |" for name, _, _, text in FIELDS)]
    )


def happenings() -> str:
    """What sdservectl events tells of."""
    return "\n".join(
        ["| event | meaning |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in MEANINGS.items())]
    )


PARTS: dict[str, Callable[[], str]] = {
    "access-fields": access_fields,
    "events": events,
    "commands": commands,
    "happenings": happenings,
    "command-failures": failures,
    "exit-codes": exit_codes,
    "master-states": lambda: diagram(MASTER),
    "worker-states": lambda: diagram(WORKER),
    "upgrade-states": lambda: diagram(UPGRADE),
    "files": files,
    "map": map_of_the_house,
    "measures": measures,
    "families": families,
    "levels": levels,
    "refused": refused,
    "accepted": accepted,
    "uvicorn": of_uvicorn,
}


def control_man() -> str:
    """docs/sdservectl.1, for man(1), from the table of commands."""
    lines = [
        '.\\" Made by `python docs/generate.py`; do not edit.',
        f'.TH SDSERVECTL 1 "" "sdserve {__version__}" "User Commands"',
        ".SH NAME",
        r"sdservectl \- ask and command a running sdserve",
        ".SH SYNOPSIS",
        r".B sdservectl",
        r"[\fIOPTIONS\fR] \fICOMMAND\fR",
        ".SH DESCRIPTION",
        _roff(" ".join((ctl.__doc__ or "").partition("\n\n")[2].split()).replace("`", "")),
        ".SH OPTIONS",
    ]
    common = ("-h, --help", "", "show what there is, and exit"), ("--version", "", "show the version, and exit")
    for names, value, text in (
        *common,
        ("-s, --socket", "PATH", SOCKET),
        ("-u, --unit", "UNIT", UNIT),
        ("--user", "", USER),
        ("--timeout", "SECONDS", TIMEOUT.about),
    ):
        spelled = ", ".join(rf"\fB{_roff(name)}\fR" for name in names.split(", "))
        lines += [".TP", spelled + (rf" \fI{value}\fR" if value else ""), _roff(text)]
    lines.append(".SH COMMANDS")
    for command in _shown():
        arguments = rf" \fI{_roff(_arguments(command).strip())}\fR" if _arguments(command) else ""
        lines += [".TP", rf"\fB{command.name}\fR{arguments}", _roff(_sentence(command.about))]
        lines += [_roff(command.details.replace("`", ""))] if command.details else []
        for field in (*command.takes, *command.shows):
            if field.about:
                lines += [".br", rf"\fB{_roff(_spelled(field))}\fR: {_roff(field.about)}"]
    lines.append(".SH EXIT STATUS")
    for code, meaning in ctl.EXIT_CODES.items():
        lines += [".TP", str(code), _roff(meaning)]
    lines += [".SH SEE ALSO", r".BR sdserve (1), systemctl (1), varlinkctl (1)"]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-")


# Pages that are generated as a whole.
WHOLE: dict[str, Callable[[], str]] = {
    "reference/settings.md": render.docs,
    "sdserve.1": render.man,
    "sdservectl.1": control_man,
    f"reference/{interface.NAME}.varlink": interface.description,
    **{f"../units/{name}": partial(str, text) for name, text in units.shipped().items()},
}


def renewed(text: str) -> str:
    """A page's text with its generated parts made anew."""
    return MARKED.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}\n{match[3]}", text)


def main() -> None:
    wanted = {page: renewed(page.read_text()) for page in sorted(DOCS.rglob("*.md"))}
    wanted |= {DOCS / name: made() for name, made in WHOLE.items()}
    for page, text in wanted.items():
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
            print(f"written: {page.resolve().relative_to(CHECKOUT)}")


if __name__ == "__main__":
    main()
