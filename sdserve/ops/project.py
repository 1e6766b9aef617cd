"""What `sdserve unit` has to know of an application: what it is, what runs it, what it writes to, and whose that is.

`look` imports the application (look.py, in a process of its own). If that fails, it reads the application's source, and
says so. The import runs as the owner of the project's directory: root does not run the code of others.
"""

import ast
import os
import shlex
import signal
import stat
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Any

from sdserve.errors import ConfigError
from sdserve.ops import report

ENVIRONMENTS = (".venv", "venv", "env")
TIMEOUT = 30.0  # seconds for the import of an application
STATE = "/state"  # stands for $STATE_DIRECTORY in what is found: the application is imported with a temporary one
MARKERS = (("get_asgi_application", "django", "asgi"), ("get_wsgi_application", "django", "wsgi"))
CLASSES = {"Flask": ("flask", "wsgi"), "FastAPI": ("fastapi", "asgi"), "Starlette": ("starlette", "asgi")}


@dataclass(frozen=True)
class Found:
    """What is known of an application.

    protocol     "wsgi", "asgi", or "" if unknown
    framework    the package that it is made with, or ""
    settings     DJANGO_SETTINGS_MODULE
    files        SQLite databases that it writes to: their directory must be writable, too
    directories  that it writes to
    static       Django's STATIC_ROOT; has_static: whether there is anything to collect
    error        why it could not be imported, so that all this comes from its source; "" if it was
    """

    protocol: str = ""
    framework: str = ""
    settings: str = ""
    files: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    static: str = ""
    has_static: bool = False
    hosts: tuple[str, ...] | None = None
    debug: bool = False
    error: str = field(default="", compare=False)


def environment(directory: str, own: str) -> str:
    """The virtual environment that serves: the project's, if sdserve is installed there, else this command's own."""
    having = (each for each in _environments(directory) if os.access(os.path.join(each, "bin", "sdserve"), os.X_OK))
    return next(having, own)


def without_sdserve(directory: str) -> str:
    """A virtual environment of the project that lacks sdserve, or ""."""
    return next(_environments(directory), "")


def _environments(directory: str) -> Iterator[str]:
    """Those of the project: in its directory, or above it, where `manage.py` or `src` lies below the project's own.

    Only its owner's and root's count: in /tmp, say, others could put one there.
    """
    trusted = {0, os.stat(directory).st_uid}
    above = Path(directory)
    for place in (above, *above.parents):
        for name in ENVIRONMENTS:
            with suppress(OSError):
                if os.stat(place / name).st_uid in trusted and os.path.exists(place / name / "bin" / "python"):
                    yield str(place / name)


def look(uri: str, directory: str, prefix: str, timeout: float = TIMEOUT) -> Found:
    """What the application `uri` in `directory` is; `prefix` is the virtual environment that serves it.

    Raises ConfigError where the name stands for no application: no unit would serve it.
    """
    answer = _ask(uri, directory, os.path.join(prefix, "bin", "python"), timeout)
    if answer.pop("nothing", False):
        below = _below(uri, directory)
        raise ConfigError(answer["error"] + (f"; it is in {below}: --chdir {shlex.quote(below)}" if below else ""))
    if "error" in answer:
        return _read(uri, directory, answer["error"])
    return Found(**answer)


def _ask(uri: str, directory: str, python: str, timeout: float) -> dict[str, Any]:
    """What look.py finds; {"error": …} if it cannot."""
    # A file and no pipe: what the application leaves running may hold it open, and nobody waits for the end of it.
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+", errors="replace") as out:
        owner = _owner(directory)
        os.chmod(scratch, 0o755)
        state = Path(scratch, "state")
        state.mkdir()
        if owner:
            os.chown(state, owner["user"], owner["group"])
        places = {f"{kind}_DIRECTORY": str(state) for kind in ("STATE", "RUNTIME", "LOGS", "CACHE")}
        environ = {**os.environ, **places, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(state)}
        try:
            child = subprocess.Popen(  # -P: modules are not looked for in "/"
                [python, "-P", "-m", "sdserve.ops.look", uri, directory, str(out.fileno())],
                cwd="/",
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[out.fileno()],
                start_new_session=True,
                **owner,
            )
        except OSError as error:
            return {"error": f"{python} cannot be run: {error.strerror}"}
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            return {"error": f"importing it took longer than {timeout:g} s"}
        finally:
            _end(child)
        out.seek(0)
        text = out.read(report.LONGEST + 1) if status == 0 else ""
        if not text:
            return {"error": f"the process that imported it ended with status {status}"}
        return report.read(text.replace(str(state), STATE))


def _below(uri: str, directory: str) -> str:
    """The directory in `directory` that the module is in, as with `src`, or `manage.py` in one of its own; or ""."""
    module = uri.partition(":")[0].replace(".", "/")
    for pattern in (f"*/{module}.py", f"*/{module}/__init__.py") if module else ():
        for found in sorted(Path(directory).glob(pattern)):
            below = found.relative_to(directory).parts[0]
            if not below.startswith(".") and below not in ENVIRONMENTS:
                return below
    return ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the process and what it has started, a thread or a child that holds the report open, too."""
    with suppress(ProcessLookupError):  # the usual case: it has ended, and nothing is left of it
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _owner(directory: str) -> dict[str, Any]:
    """As whom to import, for Popen; {} if this is not root, or the project is root's."""
    owner = os.stat(directory)
    if os.geteuid() != 0 or owner.st_uid == 0:
        return {}
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}


def _read(uri: str, directory: str, error: str) -> Found:
    """What the source of an application tells that cannot be imported."""
    module = uri.partition(":")[0]
    base = Path(directory, *module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, ValueError, SyntaxError):
            continue
        return _of_source(tree, error)
    return Found(error=error)


def _of_source(tree: ast.AST, error: str) -> Found:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    framework, protocol = next(((kind, speaks) for name, kind, speaks in MARKERS if name in names), ("", ""))
    if not framework:
        framework, protocol = next((CLASSES[name] for name in CLASSES if name in names), ("", ""))
    return Found(protocol, framework, _settings(tree), error=error)


def _settings(tree: ast.AST) -> str:
    """What `os.environ.setdefault("DJANGO_SETTINGS_MODULE", …)` says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) == 2:
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            if len(texts) == 2 and texts[0] == "DJANGO_SETTINGS_MODULE":
                return str(texts[1])
    return ""


def may_search(uid: int, groups: Collection[int], directory: str) -> bool:
    """Whether the mode of a directory lets this user search it (path_resolution(7)). Raises OSError."""
    about = os.stat(directory)
    right = 0o100 if about.st_uid == uid else 0o010 if about.st_gid in groups else 0o001
    return uid == 0 or bool(about.st_mode & right)


def shared(uid: int, path: str) -> str:
    """The first place on the way to `path`, itself included, where others than root and this user may change things.

    "" if there is none. In a directory with a sticky bit, as /tmp is, what is there is its owner's. Raises OSError.
    """
    places = [each for each in (*reversed(PurePath(path).parents), PurePath(path)) if os.path.lexists(each)]
    for place, inner in zip_longest(places, places[1:]):
        about = os.lstat(place)
        kept = stat.S_ISLNK(about.st_mode) or (inner is not None and about.st_mode & stat.S_ISVTX)
        if about.st_uid not in (0, uid) or (about.st_mode & 0o022 and not kept):
            return str(place)
    return ""


def in_home(path: str) -> bool:
    """Whether ProtectHome= hides `path` from a service."""
    return f"{path}/".startswith(("/home/", "/root/", "/run/user/"))


def hidden(path: str) -> bool:
    """Whether ProtectHome= or PrivateTmp= hides `path` from a service."""
    return in_home(path) or f"{path}/".startswith(("/tmp/", "/var/tmp/"))


def outermost(paths: Sequence[str]) -> list[str]:
    """These paths without those that lie in another of them, sorted."""
    kept: list[str] = []
    for path in sorted(set(map(os.path.normpath, paths))):
        if not any(f"{path}/".startswith(f"{other}/") for other in kept):
            kept.append(path)
    return kept
