"""What docs/how-to/asgi.md and from-uvicorn.md show works: the examples are served, the options are there."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import uvicorn
from websockets.sync.client import unix_connect

from sdserve.config import SETTINGS
from tests.support.server import CHECKOUT, Server, answer

Start = Callable[..., Server]

PAGES = CHECKOUT / "docs" / "how-to"
EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```python\n(.*?)```\n<!-- end of example -->", re.DOTALL)
EXAMPLES = dict(EXAMPLE.findall((PAGES / "asgi.md").read_text()))
SETTINGS_PY = """
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "project.urls"
"""
URLS_PY = """
from django.http import HttpResponse
from django.urls import path

async def index(request):
    return HttpResponse(f"{request.scheme} {request.path}")

urlpatterns = [path("page/", index)]
"""


def serve(start: Start, place: Path, name: str, application: str) -> Server:
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text(EXAMPLES[Path(name).name])
    server = start("-b", f"unix:{place}/s", application, cwd=place).wait_ready()
    server.wait_log(f"Using worker: asgi .{application} is an async callable")
    return server


def echoes(place: Path, path: str) -> None:
    with unix_connect(f"{place}/s", f"ws://localhost{path}") as websocket:
        for word in ("one", "two"):
            websocket.send(word)
            assert websocket.recv(timeout=15) == word


def test_the_fastapi_example(start: Start, short_path: Path) -> None:
    server = serve(start, short_path, "main.py", "main:app")
    assert answer(f"{short_path}/s").body == b'{"message":"hello"}'
    echoes(short_path, "/echo")
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert "[ERROR]" not in server.log


def test_the_django_example(start: Start, short_path: Path) -> None:
    (short_path / "project").mkdir()
    (short_path / "project" / "settings.py").write_text(SETTINGS_PY)
    (short_path / "project" / "urls.py").write_text(URLS_PY)
    server = serve(start, short_path, "project/asgi.py", "project.asgi:application")
    assert answer(f"{short_path}/s", "/page/").body == b"http /page/"
    echoes(short_path, "/")
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert "[ERROR]" not in server.log and "Traceback" not in server.log


def rows() -> list[tuple[str, str]]:
    """uvicorn's options and ours, by the table of the page."""
    table = (PAGES / "from-uvicorn.md").read_text().partition("## uvicorn's options")[2].partition("\n## ")[0]
    found: list[tuple[str, str]] = re.findall(r"^\| (.*?) \| (.*?) \|$", table, re.MULTILINE)
    return found[1:]


def test_no_option_of_uvicorns_is_missed() -> None:
    named = set(re.findall(r"--[a-z0-9-]+", " ".join(theirs for theirs, _ in rows())))
    options = {flag for each in uvicorn.main.params for flag in (*each.opts, *each.secondary_opts) if flag[:2] == "--"}
    families = ("--reload-", "--ssl-", "--version", "--use-colors", "--no-use-colors")
    assert {each for each in options if not each.startswith(families)} <= named
    assert {each for each in named if not each.startswith(families)} <= options


@pytest.mark.parametrize(("theirs", "ours"), rows(), ids=lambda cell: cell[:30])
def test_our_options_are_there(theirs: str, ours: str) -> None:
    flags = {flag for setting in SETTINGS.values() for flag in setting.flags}
    flags |= {f"--no-{flag[2:]}" for setting in SETTINGS.values() if not setting.takes_value for flag in setting.flags}
    named = re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", " ".join(re.findall(r"`([^`]*)`", ours)))
    assert set(named) <= flags
