"""Calls that would patch the standard library: which ones are refused, where, and that nothing was touched then."""

import importlib
import importlib.util
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sdserve import greenlets
from sdserve.greenlets import IN_WORKERS, WITH_THREADS, GreenletsRefused, refuse

INSTALLED = {name for name in ("gevent", "eventlet") if importlib.util.find_spec(name)}

# As far as it matters, with the arguments of theirs in their order. `touched` are modules of the standard library.
GEVENT = """
touched = []
def is_module_patched(name): return name in touched
def get_original(module, name): return module, name
def patch_item(module, name, item): ...
""" + "".join(
    f"def patch_{name}(**options): touched.append({name!r})\n"
    for name in ("os", "thread", "time", "socket", "dns", "select", "selectors", "ssl", "subprocess", "signal", "queue")
)
GEVENT += """
def patch_all(socket=True, dns=True, time=True, select=True, thread=True, os=True, **others):
    if os: patch_os()
    if thread: patch_thread()
    if socket: patch_socket()
    if select: patch_select()
    return True
"""
EVENTLET = {
    "__init__.py": "from eventlet import patcher\nmonkey_patch = patcher.monkey_patch\n",
    "patcher.py": """
touched = []
def is_monkey_patched(module): return module in touched
def monkey_patch(**on): touched.append(on)
""",
}


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("gevent", "eventlet")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("gevent", "eventlet")}
    forget()
    for package, files in {"gevent": {"__init__.py": "", "monkey.py": GEVENT}, "eventlet": EVENTLET}.items():
        (tmp_path / package).mkdir()
        for name, text in files.items():
            (tmp_path / package / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(greenlets._GUARD, "pid", 0)
    monkeypatch.setattr(greenlets._GUARD, "master", False)
    yield
    forget()
    sys.modules.update(real)


def run(call: str) -> list[Any]:
    """What a call touches, of gevent.monkey (`g`) or eventlet (`e`, and its patcher `p`)."""
    import eventlet.patcher as p  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import gevent.monkey as g  # type: ignore[import-not-found, import-untyped, unused-ignore]

    e = sys.modules["eventlet"]
    try:
        eval(call, {"g": g, "e": e, "p": p})
    finally:
        touched = [*g.touched, *p.touched]
    return touched


THREADS = [
    *("g.patch_all()", "g.patch_all(thread=False)", "g.patch_all(select=False)", "g.patch_all(os=False, queue=False)"),
    *("g.patch_all(True, True, True, False)", "g.patch_all(True, True, True, False, True)"),
    *("g.patch_thread()", "g.patch_select()", "g.patch_selectors()"),
    *("e.monkey_patch()", "p.monkey_patch()", "e.monkey_patch(socket=False)", "e.monkey_patch(thread=False)"),
    *("e.monkey_patch(thread=True)", "e.monkey_patch(select=True)", "e.monkey_patch(all=True, thread=False)"),
]
OTHERS = [
    *("g.patch_all(thread=False, select=False)", "g.patch_all(True, True, True, False, False)"),
    *(f"g.patch_{each}()" for each in ("os", "time", "socket", "dns", "ssl", "subprocess", "signal", "queue")),
    *("e.monkey_patch(socket=True)", "e.monkey_patch(thread=False, select=False)", "p.monkey_patch(all=False)"),
]


@pytest.mark.parametrize("call", THREADS)
@pytest.mark.parametrize("master", [True, False])
def test_nothing_replaces_threads_or_select(call: str, master: bool) -> None:
    refuse(master)
    with pytest.raises(GreenletsRefused, match=f"{WITH_THREADS}$"):
        run(call)
    assert run("None") == []


@pytest.mark.parametrize("call", OTHERS)
def test_a_worker_accepts_the_rest(call: str) -> None:
    refuse()
    assert run(call)


@pytest.mark.parametrize("call", OTHERS)
def test_a_master_accepts_nothing(call: str) -> None:
    refuse(master=True)
    with pytest.raises(GreenletsRefused, match=f"{IN_WORKERS}$"):
        run(call)
    assert run("None") == []
    refuse()  # it has forked a worker
    assert run(call)


@pytest.mark.parametrize(
    ("module", "call"), [("gevent.monkey", "gevent.monkey.patch_all()"), ("eventlet", "eventlet.monkey_patch()")]
)
def test_the_call_and_its_place_are_named(tmp_path: Path, module: str, call: str) -> None:
    refuse()
    path = tmp_path / "zshop.py"
    path.write_text(f"import {module}\n\n{call}\n")
    with pytest.raises(GreenletsRefused) as caught:
        exec(compile(path.read_text(), path, "exec"), {})
    assert str(caught.value) == f"{call} in {path}, line 3: {WITH_THREADS}"


@pytest.mark.parametrize("call", THREADS)
def test_what_was_imported_before(call: str) -> None:
    run("None")
    refuse()
    with pytest.raises(GreenletsRefused):
        run(call)


def test_who_asks_is_answered() -> None:
    refuse(master=True)
    from gevent.monkey import get_original, is_module_patched, patch_item

    assert not is_module_patched("thread")
    assert get_original("time", "sleep") == ("time", "sleep")
    assert patch_item.__globals__["__name__"] == "gevent.monkey"


def test_importing_it_anew_or_again_changes_nothing() -> None:
    refuse()
    module = importlib.import_module("gevent.monkey")
    for again in (importlib.reload(module), importlib.import_module("gevent.monkey")):
        with pytest.raises(GreenletsRefused):
            again.patch_all()
    forget()
    with pytest.raises(GreenletsRefused):
        run("g.patch_all()")


def test_the_module_is_as_others_are() -> None:
    refuse()
    module = importlib.import_module("gevent.monkey")
    assert module.__spec__ is not None
    assert type(module.__spec__.loader) is type(module.__loader__) is SourceFileLoader
    assert "thread=True" in str(inspect.signature(module.patch_all))
    assert inspect.getsource(module.patch_all).startswith("def patch_all(socket=True")


class Instrumenting:
    """A finder as monitoring has it: it asks the others, and runs something after the import."""

    def __init__(self) -> None:
        self.inside = False
        self.seen: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if self.inside or name != "gevent.monkey":
            return None
        self.inside = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.inside = False
        assert spec is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.seen.append(module.__name__)

        loader.exec_module = exec_module
        return spec


@pytest.mark.parametrize("first", [True, False])
def test_beside_the_finders_of_others(first: bool) -> None:
    other = Instrumenting()
    if first:
        sys.meta_path.insert(0, other)
    refuse()
    if not first:
        sys.meta_path.insert(0, other)
    with pytest.raises(GreenletsRefused):
        run("g.patch_all()")
    assert other.seen == ["gevent.monkey"]
    patch_all = sys.modules["gevent.monkey"].patch_all
    assert not hasattr(patch_all.__wrapped__, "__wrapped__")


class Asking:
    """A finder that asks all the others."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                return spec
        return None


class Old:
    """A finder as they were before find_spec. Python 3.12 and later do without it."""

    def find_module(self, name: str, path: Any = None) -> None: ...


@pytest.mark.filterwarnings("ignore::ImportWarning")
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", [Asking, Old])
def test_a_finder_that_python_gets_along_with(kind: type[Any], place: int) -> None:
    refuse()
    sys.meta_path.insert(place, kind())
    with pytest.raises(GreenletsRefused):
        run("g.patch_all()")


def test_what_cannot_be_found_is_missing_as_ever(tmp_path: Path) -> None:
    (tmp_path / "gevent/monkey.py").unlink()
    importlib.invalidate_caches()
    refuse()
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'gevent\.monkey'"):
        importlib.import_module("gevent.monkey")


def script(directory: Path, text: str) -> str:
    """What a program prints that finds the packages in a directory first."""
    places = [str(directory), str(Path(greenlets.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run([sys.executable, "-c", text], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_process_that_was_forked_may_patch_itself(tmp_path: Path) -> None:
    """An application's own server of greenlets, in a process of its own."""
    program = """
import os
from sdserve import greenlets
greenlets.refuse()
from gevent import monkey
if os.fork() == 0:
    monkey.patch_all()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert script(tmp_path, program) == "7"


def test_it_imports_nothing(tmp_path: Path) -> None:
    program = """
import sys
from sdserve import greenlets
before = set(sys.modules)
greenlets.refuse(master=True)
import colorsys
print(*set(sys.modules) - before)
"""
    assert script(tmp_path, program) == "colorsys"


@pytest.mark.parametrize("master", [True, False])
@pytest.mark.parametrize("name", ["select", "thread", "os", "socket"])
def test_who_patched_before_is_found(name: str, master: bool) -> None:
    """Threads and select are seen by themselves; a master asks those that patch for the rest."""
    run(f"g.patch_{name}()")
    refuse(master)
    others = master and name in ("os", "socket")
    assert greenlets.patched() == (f"{name} is patched by gevent.monkey: {WITH_THREADS}" if others else "")


REAL = """
import _thread, os, queue, select, selectors, signal, socket, ssl, subprocess, sys, threading, time
from sdserve import greenlets
looked = (_thread, os, queue, select, selectors, signal, socket, ssl, subprocess, threading, time)
greenlets.refuse(master=True)
import {module}
g, e, p = (sys.modules.get(name) for name in ("gevent.monkey", "eventlet", "eventlet.patcher"))
before = [dict(vars(each)) for each in looked]
for call in {refused}:
    try:
        eval(call)
    except greenlets.GreenletsRefused:
        continue
    print("accepted:", call)
print([dict(vars(each)) for each in looked] == before, repr(greenlets.patched()))
greenlets.refuse()
for call in {accepted}:
    eval(call)
print(socket.socket.__module__.partition(".")[0], repr(greenlets.patched()))
"""


@pytest.mark.parametrize("module", ["gevent.monkey", "eventlet"])
def test_the_packages_themselves(tmp_path: Path, module: str) -> None:
    package = module.partition(".")[0]
    if package not in INSTALLED:
        pytest.skip(f"{package} is not installed")
    refused, accepted = (
        [call for call in calls if call.startswith("g" if package == "gevent" else ("e", "p"))]
        for calls in (THREADS + OTHERS, OTHERS)
    )
    said = script(tmp_path / "empty", REAL.format(module=module, refused=refused, accepted=accepted))
    assert said.splitlines() == ["True ''", f"{package} ''"]
