"""The layers hold: imports go downwards only and never in circles, and what is dangerous stays in one place.

Read from the source, so that an import inside of a function counts, and one that only type checkers see as well.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import house

PACKAGE = Path(__file__).resolve().parents[2] / "sdserve"

LAYERS = [
    {"descriptor", "errors", "immutable", "__init__"},
    {"config", "systemd", "process", "http", "status", "events", "greenlets"},
    {"handlers", "access"},
    {"log", "rate_limit"},
    {"gateway"},
    {"workers", "ops"},
    {"arbiter"},
    {"cli", "ctl"},
    {"__main__"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

FORKS = {"fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen"}
COMMANDS = {"ops/project.py", "ctl/unit.py"}  # of no server: one asks a project's Python, the other asks systemctl
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
    return ast.walk(ast.parse(file.read_text(), str(file)))


def upwards(package: Path) -> list[str]:
    """The imports that do not go downwards."""
    found = []
    for name, others in house.graph(package).items():
        own = part(name)
        for other in sorted(others):
            if part(other) != own and LAYER[part(other)] >= LAYER[own]:
                found.append(f"{name}: layer {LAYER[own]} imports {other} of layer {LAYER[part(other)]}")
    return found


def part(name: str) -> str:
    """The package or module of a layer that a module belongs to."""
    return [*name.split("."), "__init__"][1]


def test_every_file_belongs_to_a_layer() -> None:
    assert {unit(file) for file in FILES} <= set(LAYER)


def test_imports_go_downwards() -> None:
    assert not upwards(PACKAGE)


def test_no_import_is_relative() -> None:
    assert not [
        f"{label(file)}:{node.lineno}"
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def test_no_files_need_each_other() -> None:
    found = house.circles(house.graph(PACKAGE))
    assert not found, "files that need each other; move what both need into one that needs neither"


def planted(tmp_path: Path, **files: str) -> Path:
    """A package with these files; `__` in a name stands for a directory."""
    for name, text in files.items():
        path = tmp_path / "sdserve" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "sdserve"


@pytest.mark.parametrize(
    "upward",
    [
        "from sdserve.arbiter.pool import Pool",
        "from sdserve.arbiter import pool",
        "import sdserve.arbiter.pool",
        "def late():\n    from sdserve.arbiter import pool",
        "if TYPE_CHECKING:\n    from sdserve.arbiter.pool import Pool",
    ],
)
def test_a_planted_upward_import_is_refused(tmp_path: Path, upward: str) -> None:
    package = planted(tmp_path, arbiter__pool="Pool = 1", workers__base=upward)
    assert upwards(package) == ["sdserve.workers.base: layer 5 imports sdserve.arbiter.pool of layer 6"]


@pytest.mark.parametrize(
    "back",
    [
        "from sdserve.arbiter.a import A",
        "def late():\n    from sdserve.arbiter import a",
        "if TYPE_CHECKING:\n    from sdserve.arbiter.a import A",
    ],
)
def test_a_planted_circle_is_refused(tmp_path: Path, back: str) -> None:
    circle = {
        "arbiter__a": "from sdserve.arbiter import b",
        "arbiter__b": "import sdserve.arbiter.c",
        "arbiter__c": back,
    }
    package = planted(tmp_path, **circle, arbiter__d="import sdserve.arbiter.a")
    assert house.circles(house.graph(package)) == [{f"sdserve.arbiter.{name}" for name in "abc"}]


def test_what_all_worker_classes_share_knows_none_of_them() -> None:
    """Nor the protocols that they speak with applications."""
    shared = {name: others for name, others in house.graph(PACKAGE).items() if name.startswith("sdserve.workers.http")}
    own = ("sdserve.workers.wsgi", "sdserve.gateway.wsgi", "sdserve.gateway.response")
    assert shared
    assert not [f"{name}: {other}" for name, others in shared.items() for other in others if other.startswith(own)]


def test_a_clients_moves_have_one_door() -> None:
    """Its phase, and what epoll is told of it, are set where all connections are kept, and nowhere else."""
    door = {"workers/http/client.py", "workers/http/clients.py"}
    found = set()
    for file in [file for file in FILES if unit(file) == "workers"]:
        for node in nodes(file):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(each, ast.Attribute) and each.attr in ("phase", "mask") for each in targets):
                found.add(label(file))
    assert found == door


@pytest.mark.parametrize("file", FILES, ids=label)
def test_only_the_arbiter_forks_and_executes(file: Path) -> None:
    if unit(file) == "arbiter" or label(file) in COMMANDS:
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
