"""What an application is, found out by a process of its own, or from its source where that fails."""

import os
import signal
import sys
from pathlib import Path

import pytest

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


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    assert "no module named 'nowhere'" in look(tmp_path, "nowhere:app").error


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
