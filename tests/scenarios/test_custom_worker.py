"""The worker class of docs/how-to/worker-classes.md serves as the page says it does."""

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import APPS, CHECKOUT, Server, answer, listener

EXAMPLE = re.compile(r"<!-- example: plainworker\.py -->\n```python\n(.*?)```\n<!-- end of example -->", re.DOTALL)
COMMAND = (str(Path(sys.executable).with_name("sdserve")),)
OPTIONS = ("-k", "plainworker:PlainWorker", "--pythonpath", str(APPS), "plain:application")


@pytest.fixture
def place(short_path: Path) -> Path:
    """A directory with the example, as a reader would save it."""
    found = EXAMPLE.search((CHECKOUT / "docs" / "how-to" / "worker-classes.md").read_text())
    assert found, "the page has no example"
    (short_path / "plainworker.py").write_text(found[1])
    return short_path


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_it_serves_is_recycled_reloaded_and_stopped(start: Callable[..., Server], place: Path, kind: str) -> None:
    with listener(f"{place}/s" if kind == "unix" else ("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        server = start(
            *("-w", "2", "--max-requests", "3", *OPTIONS), sockets=[(sock, "http")], cwd=place, program=COMMAND
        )
    server.wait_ready()
    assert len(server.workers) == 2
    assert [answer(address).status for _ in range(12)] == [200] * 12
    server.wait_log("asks for its replacement")
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: Running: 2 of 2 workers serving, generation 2")
    assert answer(address).status == 200
    server.kill(signal.SIGTERM)
    assert server.wait() == 0


def test_it_refuses_a_configuration_that_it_cannot_serve(start: Callable[..., Server], place: Path) -> None:
    server = start("-b", f"unix:{place}/s", "--threads", "4", *OPTIONS, cwd=place, program=COMMAND)
    assert server.wait() == 1
    assert "PlainWorker has one thread" in server.status()


def test_a_class_that_is_no_worker_is_refused(start: Callable[..., Server], place: Path) -> None:
    (place / "plainworker.py").write_text("class PlainWorker: pass\n")
    server = start("-b", f"unix:{place}/s", *OPTIONS, cwd=place, program=COMMAND)
    assert server.wait() == 1
    assert "does not derive from sdserve.workers.base.Worker" in server.status()
