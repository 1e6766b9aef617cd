"""Which names of a config file are mistakes: misspelt settings and hooks, and such that have no effect.

A config file also holds imports, constants and helpers, which must go on working. The rule:

- Imported names, classes, names with a leading underscore and names that are not all lower case are helpers.
- A name that the file itself reads somewhere is a helper.
- A value that is assigned to nearly the name of a setting, or to the name of its flag, is that setting misspelt, and a
  function that is called nearly like a hook is a misspelt hook: both are problems.
- Any other variable that the file assigns a plain value (number, string, list, dict, ...) and never reads has no effect
  at all, in gunicorn either: that is worth a warning, unless the file looks names up by text (globals(), locals(),
  vars(), eval, exec).

Only files that hold such a name are parsed for this, so the usual file costs nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from sdserve.config import gunicorn
from sdserve.config.convert import show
from sdserve.config.setting import Given, Setting, Source

_PLAIN = (bool, int, float, str, bytes, list, tuple, dict, set, frozenset, type(None))
_LOOKUPS = frozenset({"globals", "locals", "vars", "eval", "exec"})


def judge(
    unknown: Mapping[str, object], path: str, usage: Usage, settings: Mapping[str, Setting], contents: Source
) -> None:
    """Adds to `contents` what the unknown names of one file are: problems, warnings, or settings of gunicorn's."""
    hooks = [setting.name for setting in settings.values() if setting.section == "Hooks"]
    for name, value in unknown.items():
        line = usage.line(name)
        where = f"{path}:{line}" if line else path
        if gunicorn.is_foreign(name):
            if line or isinstance(value, _PLAIN):  # else it is an imported helper
                contents.given[name] = Given(value, where, f"file {path}")
        elif name in usage.read:
            continue
        elif name in usage.assigned:
            said = f"{where}: {name} = {show(value)} is not a setting"
            if close := _meant(name, settings):
                contents.problems.append(f"{said}; did you mean {close}?")
            elif isinstance(value, _PLAIN) and not usage.looks_up:
                contents.warnings.append(f"{said}: it has no effect")
        elif name in usage.defined and (hook := gunicorn.nearest(name, hooks)):
            contents.problems.append(f"{where}: the function {name} is not a hook; did you mean {hook}?")


def _meant(name: str, settings: Mapping[str, Setting]) -> str:
    """The setting that `name` nearly is, or whose flag it is: `name` and `pid` are flags of proc_name and pidfile."""
    spellings = {setting.name: setting.name for setting in settings.values() if setting.in_file}
    for setting in settings.values():
        for flag in setting.flags:
            if flag.startswith("--") and setting.in_file:
                spellings.setdefault(flag[2:].replace("-", "_"), setting.name)
    close = gunicorn.nearest(name, spellings)
    return spellings[close] if close else ""


class Usage:
    """How a source uses its module's names: where it assigns and defines them, and which ones it reads."""

    def __init__(self, source: bytes) -> None:
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
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
                # Parts of an unpacking are helpers: a setting is not assigned together with one that is not.
                self.assigned |= {target.id: target.lineno for target in targets if isinstance(target, ast.Name)}
        self.read.update(self._exported(tree))
        self.looks_up = not self.read.isdisjoint(_LOOKUPS)

    def line(self, name: str) -> int:
        """The line on which the module binds `name` itself, the last one if there are several, 0 if it does not."""
        return self.assigned.get(name) or self.defined.get(name) or 0

    @staticmethod
    def _exported(tree: ast.Module) -> Iterator[str]:
        """The strings of __all__, which are names for whoever imports the file."""
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def _module_level(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run in the module's own scope, not inside a function or class."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _module_level(child)
