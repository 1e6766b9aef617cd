"""The house as its imports show it: which file needs which, where they need each other, how long functions are.

Read from the source, never imported. Imports inside of functions count, and so does what only type checkers see: who
reads a file has to read what it names.
"""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

Graph = Mapping[str, set[str]]


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name, from sdserve on; a package itself has that of its `__init__.py`."""
    parent = next(place.parent for place in (package, *package.parents) if place.name == "sdserve")
    names = {path: ".".join(path.relative_to(parent).with_suffix("").parts) for path in sorted(package.rglob("*.py"))}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def imports(path: Path, known: Iterable[str]) -> set[str]:
    """The modules among `known` that a file imports, wherever it does so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= below & set(known) or {node.module}
    return found & set(known)


def graph(package: Path) -> Graph:
    """Each module of a package with those it imports."""
    files = modules(package)
    return {name: imports(path, files) - {name} for name, path in files.items()}


def circles(graph: Graph) -> list[set[str]]:
    """The sets of modules that need each other, directly or through others."""
    reach = {name: reached(graph, name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        circle = {other for other in reach[name] if name in reach[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def reached(graph: Graph, name: str) -> set[str]:
    """What one needs, directly or through others."""
    reached: set[str] = set()
    waiting = list(graph[name])
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached.add(each)
            waiting += graph[each]
    return reached


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def functions(path: Path) -> dict[str, int]:
    """The functions and methods of a file with their lengths in lines."""
    return {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
