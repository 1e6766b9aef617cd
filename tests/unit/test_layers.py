"""The layers hold: imports go downwards only, and what is dangerous stays in one place.

Read from the source, so that an import inside a function counts as well. The only exception is what type checkers alone
see (`if TYPE_CHECKING`): it binds nothing at run time.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "sdserve"

LAYERS = [
    {"errors", "status", "__init__"},
    {"config", "systemd", "process", "http"},
    {"log", "access"},
    {"gateway"},
    {"workers"},
    {"arbiter"},
    {"cli", "ctl"},
    {"__main__"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

FORKS = {"fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen"}
FORKING_MODULES = {"subprocess", "multiprocessing", "pty"}
SYSTEMD_VARIABLES = {
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def unit(file: Path) -> str:
    """The package or module of a layer that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def label(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def nodes(file: Path) -> Iterator[ast.AST]:
    """All nodes of a file that can run."""
    waiting: list[ast.AST] = [ast.parse(file.read_text(), str(file))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """Units of this package that a file imports, with the line."""
    for node in nodes(file):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{label(file)}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "sdserve":
                part = rest.partition(".")[0]
                yield part if part in LAYER else "__init__", node.lineno


def test_every_file_belongs_to_a_layer() -> None:
    assert {unit(file) for file in FILES} <= set(LAYER)


@pytest.mark.parametrize("file", FILES, ids=label)
def test_imports_go_downwards(file: Path) -> None:
    own = unit(file)
    upwards = [
        f"{label(file)}:{line}: layer {LAYER[own]} ({own}) imports layer {LAYER[other]} ({other})"
        for other, line in imported(file)
        if other != own and LAYER[other] >= LAYER[own]
    ]
    assert not upwards, "\n".join(upwards)


@pytest.mark.parametrize("file", FILES, ids=label)
def test_only_the_arbiter_forks_and_executes(file: Path) -> None:
    if unit(file) == "arbiter":
        return
    found = []
    for node in nodes(file):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if ast.unparse(node.func.value) == "os" and (name in FORKS or name.startswith(("exec", "spawn"))):
                found.append(f"{label(file)}:{node.lineno}: os.{name}")
        elif isinstance(node, ast.Import):
            found += [f"{label(file)}:{node.lineno}: {a.name}" for a in node.names if a.name in FORKING_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in FORKING_MODULES:
            found.append(f"{label(file)}:{node.lineno}: {node.module}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("file", FILES, ids=label)
def test_only_systemd_knows_its_environment(file: Path) -> None:
    if unit(file) == "systemd":
        return
    found = [
        f"{label(file)}:{node.lineno}: {node.value}"
        for node in nodes(file)
        if isinstance(node, ast.Constant) and node.value in SYSTEMD_VARIABLES
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("file", [file for file in FILES if unit(file) == "arbiter"], ids=label)
def test_masters_read_no_clock_but_their_hosts(file: Path) -> None:
    """So a simulation decides what time it is, and no step of the wall clock moves a deadline."""
    if file.name == "host.py":
        return
    found = [
        f"{label(file)}:{node.lineno}: {ast.unparse(node)}"
        for node in nodes(file)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("time.", "datetime."))
    ]
    assert not found, "\n".join(found)
