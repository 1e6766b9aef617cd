"""Config files: what they may hold, and how their mistakes are told."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from sdserve.config import SETTINGS
from sdserve.config.file import default_location, read
from sdserve.config.setting import Source

Reader = Callable[[str], Source]


@pytest.fixture
def given(tmp_path: Path) -> Reader:
    """Reads a config file with this text."""

    def run(text: str) -> Source:
        (tmp_path / "c.py").write_text(dedent(text))
        return read("c.py", str(tmp_path), SETTINGS)

    return run


def plain(contents: Source) -> dict[str, object]:
    return {name: given.value for name, given in contents.given.items()}


def test_variables_are_settings(given: Reader, tmp_path: Path) -> None:
    contents = given("workers = 4\nbind = ['a:1']\n")
    assert plain(contents) == {"workers": 4, "bind": ["a:1"]}
    assert contents.problems == []
    assert contents.given["workers"].source == f"file {tmp_path / 'c.py'}"
    assert contents.given["bind"].problem("bind", "is bad") == f"{tmp_path / 'c.py'}:2: bind: is bad"


def test_none_leaves_a_setting_alone(given: Reader) -> None:
    assert plain(given("pidfile = None\nworkers = None\n")) == {}


def test_what_a_config_file_usually_holds_beside_settings_goes_on_working(given: Reader) -> None:
    contents = given(
        '''
        """A file such as people have."""
        import multiprocessing
        import os as operating_system
        from os import environ, path as timeot
        from logging import *

        BASE = "/srv"
        Mixed = 1
        _secret = "x"
        cores = multiprocessing.cpu_count()
        workers = cores * 2 + 1
        used_in_hook = {}
        chatty: bool = False
        host, port = "127.0.0.1", 8000
        bind = f"{host}:{port}"
        exported = 1
        __all__ = ["exported"]
        pool = object()
        config = {"any": "thing"}

        for key, value in environ.items():
            if key.startswith("NO_SUCH_PREFIX_"):
                locals()[key.lower()] = value
        with open(operating_system.devnull) as null:
            pass

        class Helper:
            timeot = 3

        def helper(n):
            inner = 1
            used_in_hook[n] = chatty

        def when_ready(server):
            helper(1)
        '''
    )
    assert contents.problems == []
    assert sorted(contents.given) == ["bind", "when_ready", "workers"]


def test_an_unknown_setting_is_named_with_its_line_and_the_nearest_one(given: Reader, tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    contents = given("workers = 1\nwokers = 4\nname = 'x'\nutterly_else = []\n")
    assert contents.problems == [
        f"{path}:2: wokers = 4 is not a setting; did you mean workers?",
        f"{path}:3: name = 'x' is not a setting; did you mean proc_name?",
    ]
    assert contents.warnings == [f"{path}:4: utterly_else = [] is not a setting: it has no effect"]


@pytest.mark.parametrize(
    "text",
    [
        "if True:\n    timout = 3\n",
        "timout: int = 3\n",
        "import math\ntimout = math.floor\n",
        "timout = 3\nmore = globals().get('workers')\nprint(more)\n",
    ],
)
def test_further_ways_to_misspell(given: Reader, text: str) -> None:
    (problem,) = given(text).problems
    assert problem.endswith("is not a setting; did you mean timeout?")


def test_names_looked_up_by_text_may_be_anything_but_nearly_settings(given: Reader) -> None:
    assert given("accent = 'x'\nerrorlog = '%(accent)s.log' % globals()\n").problems == []


def test_a_misspelt_hook_is_named(given: Reader, tmp_path: Path) -> None:
    contents = given("def when_redy(server): pass\nasync def on_ext(server): pass\ndef make_app(): pass\n")
    assert contents.problems == [
        f"{tmp_path / 'c.py'}:1: the function when_redy is not a hook; did you mean when_ready?",
        f"{tmp_path / 'c.py'}:2: the function on_ext is not a hook; did you mean on_exit?",
    ]


@pytest.mark.parametrize("text", ["wsgi_module = 'a:b'\n", "traceback = True\n", "worker_memory_limit = 400\n"])
def test_what_gunicorn_passes_over_and_is_like_no_setting_is_a_warning(given: Reader, text: str) -> None:
    contents = given(text)
    assert contents.problems == []
    (warning,) = contents.warnings
    assert warning.endswith("is not a setting: it has no effect")


@pytest.mark.parametrize(
    ("name", "meant"), [("access_logfile", "accesslog"), ("pid", "pidfile"), ("logfile", "pidfile")]
)
def test_flags_are_not_variables(given: Reader, name: str, meant: str) -> None:
    """What gunicorn passes over in silence would have been meant."""
    (problem,) = given(f"{name} = 'x'\n").problems
    assert f"{name} = 'x' is not a setting; did you mean " in problem


@pytest.mark.parametrize(("module", "way"), [("gunicorn.glogging", "install gunicorn beside"), ("gevent", "threads")])
def test_a_module_of_gunicorns_world_that_is_not_installed(given: Reader, module: str, way: str) -> None:
    sys.modules[module.partition(".")[0]] = None  # type: ignore[assignment]  # whether it is installed or not
    try:
        (problem,) = given(f"import {module}\n").problems
    finally:
        del sys.modules[module.partition(".")[0]]
    assert way in problem


def test_gunicorns_settings_without_counterpart_are_found_with_their_lines(given: Reader, tmp_path: Path) -> None:
    contents = given("certfile = 'x.pem'\nreload = True\ndef ssl_context(conf, factory): return factory()\n")
    places = [contents.given[name].problem(name, "x") for name in ("certfile", "reload", "ssl_context")]
    assert places == [f"{tmp_path / 'c.py'}:{line}: x" for line in (1, 2, 3)]


def test_gunicorns_settings_that_ask_for_nothing_pass(given: Reader) -> None:
    contents = given(
        """
        from importlib import reload
        worker_connections = 1000
        worker_tmp_dir = None
        spew = False
        keyfile = None
        dirty_apps = []
        """
    )
    assert contents.problems == contents.warnings == []
    assert not contents.given


def test_a_syntax_error_is_one_line_with_the_place(given: Reader, tmp_path: Path) -> None:
    contents = given("a = 1\nworkers = = 2\n")
    assert contents.problems == [f"{tmp_path / 'c.py'}:2: syntax error: invalid syntax: workers = = 2"]
    assert isinstance(contents.cause, SyntaxError)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("import os\nos.environ['NO_SUCH']\n", 2, "KeyError: 'NO_SUCH'"),
        ("def f():\n    raise ValueError('two\\nlines')\n\nf()\n", 2, "ValueError: two lines"),
        ("import no_such_module\n", 1, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("assert False\n", 1, "AssertionError"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError: .*"),
    ],
)
def test_an_exception_is_one_line_with_the_place(
    given: Reader, tmp_path: Path, text: str, line: int, what: str
) -> None:
    before = sys.modules.get("__config__")
    (problem,) = given(text).problems
    start = f"{tmp_path / 'c.py'}:{line}: the config file raised "
    assert problem.startswith(start)
    if not what.endswith("*"):
        assert problem == start + what
    assert sys.modules.get("__config__") is before


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    contents = read("no.py", str(tmp_path), SETTINGS)
    assert contents.problems == [f"the config file {tmp_path / 'no.py'} cannot be read: No such file or directory"]
    assert read(str(tmp_path), "/", SETTINGS).problems == [f"the config file {tmp_path} cannot be read: Is a directory"]


def test_a_path_may_have_a_prefix_and_any_name(tmp_path: Path) -> None:
    (tmp_path / "odd.name").write_text("workers = 2\n")
    assert plain(read("file:odd.name", str(tmp_path), SETTINGS)) == {"workers": 2}


def test_the_declared_encoding_counts(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_bytes(b"# -*- coding: latin-1 -*-\nproc_name = '\xe9'\n")
    assert plain(read("c.py", str(tmp_path), SETTINGS)) == {"proc_name": "é"}


def test_a_change_within_the_same_second_is_seen(given: Reader, tmp_path: Path) -> None:
    assert plain(given("workers = 1\n")) == {"workers": 1}
    stat = os.stat(tmp_path / "c.py")
    (tmp_path / "c.py").write_text("workers = 2\n")
    os.utime(tmp_path / "c.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert plain(read("c.py", str(tmp_path), SETTINGS)) == {"workers": 2}


def test_the_file_is_a_module_that_knows_where_it_is(given: Reader, tmp_path: Path) -> None:
    contents = given(
        """
        import sys
        proc_name = f"{__name__} {__file__} {sys.modules[__name__].__dict__ is globals()}"
        """
    )
    assert plain(contents)["proc_name"] == f"__config__ {tmp_path / 'c.py'} True"


def test_a_module_is_run_anew_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "conf_of_test"
    package.mkdir()
    (package / "__init__.py").write_text("BASE = 3\n")
    (package / "prod.py").write_text("from conf_of_test import BASE\nworkers = BASE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    first = read("python:conf_of_test.prod", "/", SETTINGS)
    assert plain(first) == {"workers": 3}
    assert first.given["workers"].source == f"file {package / 'prod.py'}"
    (package / "prod.py").write_text("from . import BASE\nworkers = BASE + 1\n")
    assert plain(read("python:conf_of_test.prod", "/", SETTINGS)) == {"workers": 4}


@pytest.mark.parametrize("name", ["no_such_module", "no_such.module", "sys", ""])
def test_a_module_that_cannot_be_read(name: str) -> None:
    (problem,) = read(f"python:{name}", "/", SETTINGS).problems
    assert problem.startswith(f"the config module python:{name} ")


def test_the_default_file_is_ours_before_gunicorns(tmp_path: Path) -> None:
    assert default_location(str(tmp_path)) == ""
    (tmp_path / "gunicorn.conf.py").touch()
    assert default_location(str(tmp_path)) == str(tmp_path / "gunicorn.conf.py")
    (tmp_path / "sdserve.conf.py").touch()
    assert default_location(str(tmp_path)) == str(tmp_path / "sdserve.conf.py")
