"""What an application is, found out by a process of its own, or from its source where that fails."""

import os
import signal
import sys
from pathlib import Path

import pytest

from sdserve.errors import ConfigError
from sdserve.ops import project
from sdserve.ops.project import STATE, Found

FLASK = """
print("noise")
from flask import Flask
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///shop.db"
"""
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
SETTINGS = """
import os
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["STATE_DIRECTORY"] + "/db"}}
INSTALLED_APPS = ["django.contrib.staticfiles"]
STATIC_URL, STATIC_ROOT = "static/", "collected"
ALLOWED_HOSTS = ["shop.example"]
SECRET_KEY = "x"
"""
DJANGO = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


def look(directory: Path, uri: str, timeout: float = project.TIMEOUT, **files: str) -> Found:
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text)
    return project.look(uri, str(directory), sys.prefix, timeout)


def test_flask(tmp_path: Path) -> None:
    found = look(tmp_path, "site_app:app", site_app=FLASK)
    assert found == Found("wsgi", "flask", files=(f"{tmp_path}/instance/shop.db",))
    assert not found.error


def test_fastapi(tmp_path: Path) -> None:
    assert look(tmp_path, "site_app:app", site_app=FASTAPI) == Found("asgi", "fastapi")


def test_django(tmp_path: Path) -> None:
    found = look(tmp_path, "wsgi", wsgi=DJANGO, settings=SETTINGS)
    static = f"{tmp_path}/collected"
    assert found == Found("wsgi", "django", "settings", (f"{STATE}/db",), (), static, True, ("shop.example",), False)


@pytest.mark.parametrize(
    ("breaks", "timeout", "reason"),
    [
        ("import nowhere", project.TIMEOUT, "imports nowhere, which is not installed"),
        ("import threading; threading.Event().wait()", 1.0, "longer than 1 s"),
        ("import os; os._exit(7)", project.TIMEOUT, "status 7"),
    ],
)
def test_what_cannot_be_imported_is_read(tmp_path: Path, breaks: str, timeout: float, reason: str) -> None:
    found = look(
        tmp_path, "wsgi", timeout, wsgi=f"{DJANGO.replace('application =', f'{breaks}{chr(10)}application =')}"
    )
    assert found == Found("wsgi", "django", "settings")
    assert reason in found.error


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def app(): ...", r"a factory is written with parentheses, shop:app\(\)"),
        ("class app:\n    def __call__(self, environ, start_response): ...", r"an instance .*, shop:app\(\)"),
        ("import select\ndel select.epoll\ndef app(environ, start_response): ...", "select is patched"),
    ],
)
def test_what_no_worker_would_serve_is_an_error(tmp_path: Path, source: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        look(tmp_path, "shop:app", shop=source)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("nowhere:app", r"no module named 'nowhere' [^;]*$"),
        ("shop.wsgi", r"no module named 'shop' .*; it is in back end: --chdir 'back end'$"),
        ("lib:app", r"no module named 'lib' .*; it is in src: --chdir src$"),
        ("site_app", r"site_app has no 'application'; did you mean app"),
        ("site_app.py", r"did you mean site_app:app\?"),
    ],
)
def test_what_stands_for_no_application_is_an_error(tmp_path: Path, uri: str, reason: str) -> None:
    for name in ("back end/shop/wsgi.py", ".old/shop/wsgi.py", "src/lib/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=reason):
        look(tmp_path, uri, site_app=FASTAPI)


def test_the_environment_is_the_projects_also_from_a_directory_below(tmp_path: Path) -> None:
    inner = tmp_path / "shop" / "backend"
    inner.mkdir(parents=True)
    assert project.environment(str(inner), "/own") == "/own"
    for name in ("shop/.venv/bin/python", "env/bin/python", "env/bin/sdserve"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(0o755)
    assert project.without_sdserve(str(inner)) == f"{tmp_path}/shop/.venv"
    assert project.environment(str(inner), "/own") == f"{tmp_path}/env"
    if os.geteuid() == 0:
        os.chown(tmp_path / "env", 12345, 12345)
        assert project.environment(str(inner), "/own") == "/own"


def test_who_may_search(tmp_path: Path) -> None:
    place = str(tmp_path)
    own, group = os.stat(place).st_uid, os.stat(place).st_gid
    other = own + 1
    tmp_path.chmod(0o710)
    assert project.may_search(own, (), place) and project.may_search(other, {group}, place)
    assert not project.may_search(other, (), place)


def test_where_others_may_put_something_else(tmp_path: Path) -> None:
    own, place = os.geteuid(), tmp_path / "project"
    place.mkdir()
    output = str(place / "units")
    assert project.shared(own, output) == ""
    assert project.shared(own + 1, output) == ("" if own == 0 else str(tmp_path.parents[1]))
    for mode, inside in ((0o777, False), (0o775, False), (0o1777, False), (0o1777, True)):
        place.chmod(mode)
        if inside:
            Path(output).mkdir()
        assert project.shared(own, output) == ("" if inside else str(place)), oct(mode)
    (place / "link").symlink_to("units")
    assert project.shared(own, str(place / "link")) == ""
    Path(output).chmod(0o777)
    assert project.shared(own, output) == output


def test_paths() -> None:
    assert project.outermost(["/a/b", "/a", "/ab", "/a/c/"]) == ["/a", "/ab"]
    assert [project.hidden(each) for each in ("/home/x", "/tmp", "/srv", "/homely")] == [True, True, False, False]


DAEMON = """
import os, signal
if os.fork() == 0:
    os.setsid()
    with open(os.path.join(os.path.dirname(__file__), "pid"), "w") as file:
        file.write(str(os.getpid()))
    signal.pause()
while not os.path.exists(os.path.join(os.path.dirname(__file__), "pid")):
    os.sched_yield()
def application(environ, start_response): ...
"""


def test_nobody_waits_for_what_an_application_leaves_running(tmp_path: Path) -> None:
    """A daemon of its own, in a session of its own, with every descriptor that it was born with."""
    found = look(tmp_path, "wsgi", wsgi=DAEMON)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (found.protocol, found.error) == ("wsgi", "")
