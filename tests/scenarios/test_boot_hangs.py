"""A boot that hangs ends at its time-out, and says what it was waiting for, and where."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server

IMPORT = """import time
def connect():
    time.sleep(1000)
connect()
"""
HOOK = """import time
def post_worker_init(worker):
    time.sleep(1000)
"""
WAITS = """import asyncio
from contextlib import asynccontextmanager
@asynccontextmanager
async def pool():
    await asyncio.sleep(1000)
    yield
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        async with pool():
            await receive()
"""
BLOCKS = """import time
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("app", "conf", "why"),
    [
        (IMPORT, "", "it was at {app}, line 3"),
        ("def application(environ, start_response): ...", HOOK, "it was at {conf}, line 3"),
        (WAITS, "", "lifespan.startup is not complete ({app}, line 5)"),
        (BLOCKS, "", "lifespan.startup is not complete ({app}, line 5)"),
    ],
)
def test_it_says_where(start: Callable[..., Server], tmp_path: Path, app: str, conf: str, why: str) -> None:
    files = {"app": tmp_path / "hangs.py", "conf": tmp_path / "conf.py"}
    files["app"].write_text(app)
    files["conf"].write_text(conf)
    server = start("--boot-timeout", "1", "-c", "conf.py", "hangs:application", cwd=tmp_path)
    assert server.wait() == 3
    reason = f"it did not boot within 1 seconds (boot_timeout): {why.format(**files)}"
    assert f"Worker failed to boot: {reason}" in server.log


@pytest.mark.parametrize(
    ("app", "conf", "why"),
    [
        (
            IMPORT,
            "preload_app = True\n",
            "the import of the application did not end within 1 seconds{limit}{app}, line 3",
        ),
        (
            "def application(environ, start_response): ...",
            HOOK.replace("post_worker_init", "when_ready"),
            "the hook when_ready did not end within 1 seconds{limit}{conf}, line 3",
        ),
    ],
)
def test_the_master_says_where_as_well(
    start: Callable[..., Server], tmp_path: Path, app: str, conf: str, why: str
) -> None:
    files = {"app": tmp_path / "hangs.py", "conf": tmp_path / "conf.py"}
    files["app"].write_text(app)
    files["conf"].write_text(conf)
    server = start("--boot-timeout", "1", "-c", "conf.py", "hangs:application", cwd=tmp_path)
    assert server.wait() == 3
    assert why.format(limit=" (boot_timeout): it was at ", **files) in server.log
