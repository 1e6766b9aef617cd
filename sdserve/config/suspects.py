"""Which names of a config file are mistakes: misspelt settings and hooks, and gunicorn's without a counterpart.

A config file also holds imports, constants and helpers, which must go on working. The rule:

- Imported names, classes, names with a leading underscore and names that are not all lower case are helpers.
- A name that the file itself reads somewhere is a helper.
- A variable that the file assigns a plain value (number, string, list, dict, ...) and never reads would have no effect
  at all: it is an unknown setting.
- A function that is defined here and called nearly like a hook is a misspelt hook; any other value that is assigned to
  nearly the name of a setting is that setting misspelt.
- Where the file looks names up by text (globals(), locals(), vars(), eval, exec), only what is nearly the name of a
  setting is refused.

Only files that hold such a name are parsed for this, so the usual file costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from sdserve.config import counterparts
from sdserve.config.convert import show
from sdserve.config.setting import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

CLOSE = 0.8  # difflib ratio from which on a name counts as another one misspelt
_PLAIN = (bool, int, float, str, bytes, list, tuple, dict, set, frozenset, type(None))
_LOOKUPS = frozenset({"globals", "locals", "vars", "eval", "exec"})


def may_be_misread(name: str, value: object, settings: Mapping[str, Setting]) -> bool:
    """A quick look: whether the name has to be judged by how the file uses it."""
    if isinstance(value, type(sys)):
        return False
    if name in counterparts.NO_COUNTERPART:
        return not counterparts.asks_for_nothing(name, value)
    return name not in settings and not name.startswith("_") and name == name.lower()


def misread(path: str, source: bytes, suspects: Mapping[str, object], settings: Mapping[str, Setting]) -> list[str]:
    """A problem line for each suspect that is a mistake, in the order of the file."""
    usage = Usage(source)
    problems = []
    for name, value in suspects.items():
        line = usage.line(name)
        where = f"{path}:{line}" if line else path
        if name in counterparts.NO_COUNTERPART:
            if suspects.keys().isdisjoint(counterparts.MATTERS_WITH.get(name, (name,))):
                continue
            if line or isinstance(value, _PLAIN):  # else it is an imported helper
                shown = "" if callable(value) else show(value)
                problems.append(f"{where}: {counterparts.refusal(name, shown)}")
        elif name in usage.read:
            continue
        elif name in usage.assigned:
            plain = isinstance(value, _PLAIN) and not usage.looks_up
            if plain or counterparts.nearest(name, _names(settings), CLOSE):
                problems.append(f"{where}: {name} = {show(value)} is not a setting{_suggestion(name, settings)}")
        elif name in usage.defined and (close := counterparts.nearest(name, _hooks(settings), CLOSE)):
            problems.append(f"{where}: the function {name} is not a hook; did you mean {close}?")
    return problems


def _names(settings: Mapping[str, Setting]) -> list[str]:
    return [setting.name for setting in settings.values() if setting.in_file]


def _hooks(settings: Mapping[str, Setting]) -> list[str]:
    return [setting.name for setting in settings.values() if setting.section == "Hooks"]


def _suggestion(name: str, settings: Mapping[str, Setting]) -> str:
    """The nearest setting; flags count too, since `name` and `pid` are what proc_name and pidfile are called there."""
    spellings = {name: name for name in _names(settings)}
    for setting in settings.values():
        for flag in setting.flags:
            if flag.startswith("--") and setting.in_file:
                spellings.setdefault(flag[2:].replace("-", "_"), setting.name)
    close = counterparts.nearest(name, spellings)
    return f"; did you mean {spellings[close]}?" if close else ""


class Usage:
    """How a source uses its module's names: where it assigns and defines them, and which ones it reads."""

    def __init__(self, source: bytes) -> None:
        import ast

        self.assigned: dict[str, int] = {}
        self.defined: dict[str, int] = {}
        self.read: set[str] = set()

        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                self.read.add(node.id)
        for node in _module_level(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.defined[node.name] = node.lineno
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    self._assign(target)
            elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
                self._assign(node.target)
        self.read.update(self._exported(tree))
        self.looks_up = not self.read.isdisjoint(_LOOKUPS)

    def line(self, name: str) -> int:
        """The line on which the module binds `name` itself, the last one if there are several, 0 if it does not."""
        return self.assigned.get(name) or self.defined.get(name) or 0

    def _assign(self, target: ast.expr) -> None:
        # Parts of an unpacking are helpers: a setting is not assigned that way together with one that is not.
        name = getattr(target, "id", None)
        if name is not None:
            self.assigned[name] = target.lineno

    @staticmethod
    def _exported(tree: ast.Module) -> Iterator[str]:
        """The strings of __all__, which are names for whoever imports the file."""
        import ast

        for node in tree.body:
            if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def _module_level(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run in the module's own scope, not inside a function or class."""
    import ast

    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _module_level(child)
