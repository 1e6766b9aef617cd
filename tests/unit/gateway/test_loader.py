"""The application by its name: what is found, and the one line for everything that is not."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdserve.errors import AppBootError, AppImportError
from sdserve.gateway.blame import account
from sdserve.gateway.loader import load

GOOD = """
def application(environ, start_response): ...
def app(environ, start_response): ...
def create_app(name="x", *, debug=False):
    def made(environ, start_response): ...
    made.name, made.debug = name, debug
    return made
class Holder:
    inner = staticmethod(app)
holder = Holder()
number = 5
def broken_factory(): return 1 / 0
def empty_factory(): pass
def confused_factory(): return len(5)
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    (tmp_path / "ld_good.py").write_text(GOOD)
    (tmp_path / "ld_syntax.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "ld_needs.py").write_text("import ld_not_installed\n")
    (tmp_path / "ld_raises.py").write_text("\nraise ValueError('no\\nluck')\n")
    (tmp_path / "ld_large.py").write_text("x = bytes(1 << 62)\n")
    (tmp_path / "ld_pkg").mkdir()
    (tmp_path / "ld_pkg" / "__init__.py").write_text("")
    (tmp_path / "ld_pkg" / "page.py").write_text("def create_app(): ...\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("ld_good", "application"),
        ("ld_good:app", "app"),
        ("ld_good:holder.inner", "app"),
        ("ld_good:create_app()", "made"),
        ("ld_good:create_app('y', debug=True)", "made"),
    ],
)
def test_it_is_found(uri: str, name: str) -> None:
    assert load(uri).__name__ == name


def test_a_factory_gets_its_arguments() -> None:
    made = load("ld_good:create_app('y', debug=True)")
    assert (made.name, made.debug) == ("y", True)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "write package.module:callable"),
        ("../x:app", "write package.module:callable"),
        ("ld_good:aplication", "did you mean application"),
        ("ld_good:zzz", "did you mean application or app or create_app()?"),
        ("ld_pkg.page:nothing", "did you mean create_app()?"),
        ("ld_good:number", "'number' is an int, not an application"),
        ("ld_good:number()", "is an int and cannot be called"),
        ("./ld_good.py:app", "write package.module:callable; did you mean ld_good:app?"),
        ("ld_pkg/page.py", "did you mean ld_pkg.page:create_app()?"),
        ("ld_good:create_app(open('x'))", "must be literals"),
        ("ld_good:create_app(**{})", "must be literals"),
        ("ld_good:empty_factory()", "returned None"),
        ("ld_good:create_app(1, 2)", "TypeError"),
        ("ld_good:1 + 1", "is not a name or a call"),
        ("ld_good:a b", "is not a name or a call"),
    ],
)
def test_a_name_that_means_no_callable_is_said_in_one_line(uri: str, said: str) -> None:
    with pytest.raises(AppImportError) as caught:
        load(uri)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_whole_path_means_a_module_of_its_directory(tmp_path: Path) -> None:
    with pytest.raises(AppImportError) as caught:
        load(f"{tmp_path}/ld_good.py")
    assert str(caught.value).endswith(f"; did you mean ld_good:application in chdir = '{tmp_path}'?")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("ld_nowhere:app", "no module named 'ld_nowhere'"),
        ("unit", "; units are written by `sdserve unit APP`"),
        ("ld_pkg.nowhere:app", "ld_pkg has no module 'nowhere'"),
        ("ld_good.py", "no module named 'ld_good.py'; did you mean ld_good:application?"),
        ("nowhere.py", "no module named 'nowhere"),
        ("ld_needs:app", "ld_needs imports ld_not_installed, which is not installed"),
        ("ld_syntax:app", "ld_syntax.py, line 2"),
        ("ld_raises:app", "ld_raises.py, line 2): ValueError: no"),
        ("ld_large:app", "ld_large.py, line 1): MemoryError; see MemoryMax= and LimitAS="),
        ("ld_good:broken_factory()", "the factory failed"),
        ("ld_good:confused_factory()", "the factory failed"),
    ],
)
def test_what_the_application_raises_is_said_in_one_line(uri: str, said: str) -> None:
    with pytest.raises(AppBootError) as caught:
        load(uri)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_the_error_behind_it_is_chained() -> None:
    with pytest.raises(AppBootError) as caught:
        load("ld_raises:app")
    assert isinstance(caught.value.__cause__, ValueError)


LIBRARY = "import importlib\ndef load(name):\n    return importlib.import_module(name)\n"
BLAMED = {
    "a library that an ini told": (
        {"zapp.py": "from site_packages_lib import load\n\napplication = load('Paste_x')\n"},
        "importing zapp failed",
        "zapp.py, line 3): site_packages_lib asks for Paste_x, which is not installed",
    ),
    "an import further in": (
        {"zapp.py": "import zinner\n", "zinner.py": "\nimport znot_there\n"},
        "importing zapp failed",
        "zinner.py, line 2): zinner asks for znot_there, which is not installed",
    ),
    "an attribute": (
        {"zapp.py": "import zinner\n", "zinner.py": "import os\n\nos.no_such_thing\n"},
        "importing zapp failed",
        "zinner.py, line 3): AttributeError: module 'os' has no attribute 'no_such_thing'",
    ),
    "a library deep below": (
        {"zapp.py": "import json\n\n\njson.loads('{')\n"},
        "importing zapp failed",
        "zapp.py, line 4): JSONDecodeError",
    ),
    "a text that is compiled": (
        {"zapp.py": "\nexec('1 +')\n"},
        "syntax error in <string>, line 1: invalid syntax",
        "zapp.py, line 2)",
    ),
}


@pytest.mark.parametrize("case", BLAMED)
def test_the_applications_own_last_line_is_blamed(directory: Path, case: str) -> None:
    files, *said = BLAMED[case]
    (directory / "site-packages").mkdir()
    sys.path.append(str(directory / "site-packages"))
    (directory / "site-packages" / "site_packages_lib.py").write_text(LIBRARY)
    for name, text in files.items():
        (directory / name).write_text(text)
    try:
        with pytest.raises(AppImportError) as caught:
            load("zapp:application")
    finally:
        sys.path.remove(str(directory / "site-packages"))
    assert all(each in str(caught.value) for each in said), caught.value
    told = account(caught.value)
    assert "<frozen" not in told and "importlib/__init__" not in told and "loader.py" not in told, told
    assert "zapp.py" in told


def test_the_traceback_of_a_syntax_error_shows_the_line(directory: Path) -> None:
    with pytest.raises(AppImportError) as caught:
        load("ld_syntax:app")
    told = account(caught.value)
    assert "def f(:" in told and told.endswith("SyntaxError: invalid syntax")
    assert "importlib" not in told


@pytest.mark.parametrize("uri", ["ld_nowhere:app", "ld_good:aplication", "ld_good:number"])
def test_a_name_that_is_wrong_needs_no_traceback(uri: str) -> None:
    with pytest.raises(AppImportError) as caught:
        load(uri)
    assert not account(caught.value)


def test_what_is_no_path_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, 5])
    with pytest.raises(AppBootError, match="no module named 'ynowhere'"):
        load("ynowhere:application")


def test_a_closed_directory_has_nothing_to_do_with_a_name_that_is_missing_elsewhere(closed: Path) -> None:
    sys.path.append(str(closed))
    try:
        with pytest.raises(AppBootError) as caught:
            load("ywants:application")
    finally:
        sys.path.remove(str(closed))
    assert "may not read" not in str(caught.value)


@pytest.fixture
def closed(short_path: Path) -> Iterator[Path]:
    """A package that root alone may look into, seen by somebody else."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    short_path.chmod(0o755)
    package = short_path / "yshop"
    package.mkdir(mode=0o700)
    (package / "__init__.py").touch()
    (package / "wsgi.py").write_text("def application(environ, start_response): ...\n")
    (short_path / "yuses.py").write_text("from yshop import settings\n")
    (short_path / "ywants.py").write_text("from collections import ynothing\n")
    sys.path.insert(0, str(short_path))
    os.seteuid(65534)
    try:
        yield package
    finally:
        os.seteuid(0)
        sys.path.remove(str(short_path))
        for name in [name for name in sys.modules if name.startswith(("yshop", "yuses", "ywants"))]:
            del sys.modules[name]


def test_a_path_below_a_directory_that_its_user_may_not_enter(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(closed / "lib"), *sys.path])
    with pytest.raises(AppBootError) as caught:
        load("ynowhere:application")
    assert str(caught.value).endswith(f"; this user may not read the directory {closed}")


@pytest.mark.parametrize("uri", ["yshop.wsgi:application", "yshop:application", "yuses:application"])
def test_a_package_that_its_user_may_not_read(closed: Path, uri: str) -> None:
    """To Python it is one without files: what is in it is not there."""
    with pytest.raises((AppBootError, AppImportError)) as caught:
        load(uri)
    assert str(caught.value).endswith(f"; this user may not read the directory {closed}")
