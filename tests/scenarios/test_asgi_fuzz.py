"""Some hundred runs of the fuzzer of the ASGI worker's loop, always the same: all kinds of clients, calls that fail."""

import subprocess
import sys

from tests.support.server import CHECKOUT


def test_nothing_leaves_the_loop_and_everybody_is_answered() -> None:
    command = [sys.executable, "-m", "tests.fuzz.asgi_worker", "--runs", "300"]
    found = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert " 0 findings" in found.stdout
