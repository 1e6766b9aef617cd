"""The application by its name, `package.module:callable`, as in gunicorn; `:callable(...)` calls a factory.

What can go wrong here is what operators see most often, so every failure becomes one line that says which name is
wrong and what would be right. The exception behind it is chained, for the traceback in the log. As in gunicorn, there
are two kinds, with exit codes of their own: whatever an import or a factory raises is an AppBootError, SystemExit and
its like too, a name that means no callable is an AppImportError.
"""

import importlib
import os
import sys
from collections.abc import Callable
from itertools import accumulate, repeat
from keyword import iskeyword
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sdserve.errors import AppBootError, AppImportError, Interruption, Leave, in_words
from sdserve.gateway.blame import importer, place
from sdserve.gateway.protocol import demand_wsgi as demand_wsgi
from sdserve.gateway.protocol import is_factory

if TYPE_CHECKING:
    import ast

DEFAULT_NAME = "application"
USUAL_NAMES = ("application", "app", "create_app", "make_app")


def load(uri: str) -> Callable[..., Any]:
    """The callable that `uri` names: "module", "module:name", "module:name.attribute" or "module:factory(literals)".

    Raises AppImportError, AppBootError. What ends this from outside passes, and what ends a child that is forked in it.
    """
    module_name, _, expression = uri.partition(":")
    module = _import(module_name, uri)
    name, call = _parse(expression or DEFAULT_NAME, uri)
    found = _look_up(module, name, uri)
    if call is not None:
        found = _call_factory(found, call, uri)
    if not callable(found):
        raise AppImportError(f"{uri}: {name!r} is {_kind(found)}, not an application")
    return found  # type: ignore[no-any-return]


def _import(name: str, uri: str) -> ModuleType:
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise AppImportError(
            f"{uri!r} does not name an application: write package.module:callable{_meant_file(name, uri)}"
        )
    pid = os.getpid()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise AppBootError(_missing_module(name, uri, error) + _closed(error.name)) from error
    except SyntaxError as error:
        # Of a file it says itself where it is; of a text that some code compiles, that code is to be named.
        at = "" if error.filename and os.path.exists(error.filename) else place(error)
        raise AppBootError(f"{uri}: syntax error in {error.filename}, line {error.lineno}: {error.msg}{at}") from error
    except BaseException as error:
        if not _is_failure(error, pid):
            raise
        closed = _closed(error.name) if isinstance(error, ImportError) and error.path is None else ""
        raise AppBootError(f"{uri}: importing {name} failed{place(error)}: {_line(in_words(error))}{closed}") from error


def _is_failure(error: BaseException, pid: int) -> bool:
    """Whether this is the application's own, in the process `pid` that loads it."""
    return os.getpid() == pid and not isinstance(error, (Interruption, Leave))


def _missing_module(name: str, uri: str, error: ModuleNotFoundError) -> str:
    missing = error.name or str(error)
    if name != missing and not name.startswith(missing + "."):
        asked = importer(error)
        if asked == name or asked.startswith(name + "."):
            return f"{uri}: {asked} imports {missing}, which is not installed{place(error)}"
        return f"{uri}: importing {name} failed{place(error)}: {asked} asks for {missing}, which is not installed"
    if meant := _meant_file(name, uri):
        return f"{uri}: no module named {missing!r}{meant}"
    if missing == name.partition(".")[0]:
        where = repr(sys.path[0] or ".") if sys.path else "the path"
        units = "; units are written by `sdserve unit APP`" if uri == "unit" else ""
        return (
            f"{uri}: no module named {missing!r} in {where} or further on the path:"
            f" check name, --chdir, --pythonpath{units}"
        )
    return f"{uri}: {missing.rpartition('.')[0]} has no module {missing.rpartition('.')[2]!r}"


def _closed(name: str | None) -> str:
    """`; this user may not read …`, of a package's directory on the path: Python takes it for one without files."""
    parts = (name or "").split(".")
    for directory in sys.path:
        if not isinstance(directory, str):  # Python passes it over as well
            continue
        root = os.sep if os.path.isabs(directory) else ""
        above = accumulate(os.path.dirname(directory).split(os.sep), os.path.join, initial=root)
        below = accumulate(parts, os.path.join, initial=directory)
        for each, access in (*zip(above, repeat(os.X_OK)), *zip(below, repeat(os.R_OK | os.X_OK))):
            if os.path.isdir(each) and not os.access(each, access, effective_ids=True):
                return f"; this user may not read the directory {each}"
    return ""


def _meant_file(name: str, uri: str) -> str:
    """`; did you mean app:app?` where a path was written and the file is there, else nothing."""
    path = name if name.endswith(".py") else f"{name}.py"
    if name == path or "/" in name:
        directory, base = os.path.split(path) if os.path.isabs(path) else ("", path.removeprefix("./"))
        module = base.removesuffix(".py").strip("/").replace("/", ".")
        import ast

        try:
            with open(path, "rb") as file:
                tree = ast.parse(file.read())
        except (OSError, ValueError, SyntaxError):
            return ""
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        functions = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
        usual = next((each for each in USUAL_NAMES if each in bound or each in functions), DEFAULT_NAME)
        if (takes := functions.get(usual)) and not takes.vararg and len(takes.posonlyargs + takes.args) < 2:
            usual += "()"
        where = f" in chdir = {directory!r}" if directory else ""
        return f"; did you mean {module}:{uri.partition(':')[2] or usual}{where}?"
    return ""


def _kind(value: object) -> str:
    """What something is, in a sentence: `an int`, `a module`."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _line(said: object) -> str:
    """The first line of a text."""
    return (str(said).splitlines() or [""])[0]


def _parse(expression: str, uri: str) -> "tuple[str, ast.Call | None]":
    if all(part.isidentifier() and not iskeyword(part) for part in expression.split(".")):
        return expression, None
    import ast

    try:
        node = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise AppImportError(
            f"{uri}: {expression!r} is not a name or a call: write callable or factory('x')"
        ) from error
    call = node if isinstance(node, ast.Call) else None
    name = ast.unparse(call.func if call else node)
    if not all(part.isidentifier() for part in name.split(".")):
        raise AppImportError(f"{uri}: {expression!r} is not a name or a call: write callable or factory('x')")
    return name, call


def _look_up(module: ModuleType, name: str, uri: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            closed = _closed(module.__name__) if not getattr(module, "__file__", "") else ""
            raise AppImportError(f"{uri}: {module.__name__} has no {name!r}{_nearest(found, part)}{closed}") from error
    return found


def _nearest(owner: object, wanted: str) -> str:
    from difflib import get_close_matches

    bound: dict[str, Any] = getattr(owner, "__dict__", {})  # an object with slots has none
    names = [name for name, value in bound.items() if callable(value) and not name.startswith("_")]
    usual = [name for name in USUAL_NAMES if name in names]
    near = list(dict.fromkeys([*get_close_matches(wanted, names, 3, 0.5), *usual]))
    if not near:
        return ""
    shown = [f"{name}()" if is_factory(bound[name]) else name for name in near]
    return f"; did you mean {' or '.join(shown)}?"


def _call_factory(factory: Any, call: "ast.Call", uri: str) -> Any:
    import ast

    if not callable(factory):
        raise AppImportError(f"{uri}: {ast.unparse(call.func)!r} is {_kind(factory)} and cannot be called")
    if any(keyword.arg is None for keyword in call.keywords):
        raise AppImportError(f"{uri}: arguments of a factory must be literals")
    try:
        args = [ast.literal_eval(arg) for arg in call.args]
        kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError as error:
        raise AppImportError(f"{uri}: arguments of a factory must be literals") from error
    pid = os.getpid()
    try:
        made = factory(*args, **kwargs)
    except BaseException as error:
        if not _is_failure(error, pid):
            raise
        trace = error.__traceback__
        if isinstance(error, TypeError) and trace is not None and trace.tb_next is None:  # it was not even entered
            raise AppImportError(f"{uri}: TypeError: {_line(error)}") from error
        text = _line(in_words(error))
        raise AppBootError(f"{uri}: the factory failed{place(error)}: {text}") from error
    if made is None:
        raise AppImportError(f"{uri}: the factory returned None instead of an application")
    return made
