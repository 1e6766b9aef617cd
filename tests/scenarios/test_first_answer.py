"""The first client of an activated service waits for what is imported: what no first answer needs is not among it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.server import Server, answer

Start = Callable[..., Server]

APP = """
import sys

def application(environ, start_response):
    start_response("200 OK", [])
    return [" ".join(sys.modules).encode()]
"""
# Each costs as much as ten modules of our own, or brings such ones along.
HEAVY = {
    *("argparse", "ast", "asyncio", "dataclasses", "difflib", "dis", "email", "hashlib", "http.client", "inspect"),
    *(
        "ipaddress",
        "json",
        "multiprocessing",
        "pathlib",
        "random",
        "shutil",
        "ssl",
        "subprocess",
        "sysconfig",
        "tempfile",
    ),
    *("urllib.parse", "sdserve.arbiter.control", "sdserve.arbiter.old_master", "sdserve.arbiter.reload"),
}


def test_the_first_answer_waits_for_no_heavy_module(start: Start, short_path: Path) -> None:
    (short_path / "app.py").write_text(APP)
    start("-b", f"unix:{short_path}/s", "app", cwd=short_path).wait_ready()
    loaded = set(answer(f"{short_path}/s").body.decode().split())
    # What an environment for development loads by itself, by its .pth files.
    program = "import sys; print(*sys.modules)"
    bare = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert sorted((loaded - set(bare.split())) & HEAVY) == []
