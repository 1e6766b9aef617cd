"""A worker that was stopped (SIGSTOP) and is then told to leave goes on, finishes, and leaves: nobody waits for it."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sdserve.ctl import ask
from tests.support.load import Load
from tests.support.server import Server, connector, free_port
from tests.support.waiting import eventually


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["stop", "reload"])
def test_its_request_is_answered_and_it_leaves(
    start: Callable[..., Server], short_path: Path, number: signal.Signals
) -> None:
    port, control = free_port(), str(short_path / "control")
    server = start("-w", "1", "-b", f"127.0.0.1:{port}", "--control-socket", control, "plain:application").wait_ready()
    [worker] = server.workers

    def busy() -> object:
        [only] = ask(control, "status", None)["status"]["workers"]
        return (only["busy"] or 0) > 0.1  # in the call, and not in a turn that is about to accept it

    with Load(connector(("127.0.0.1", port)), clients=1, reuse=0, path="/sleep/0.5", requests=1) as load:
        eventually(busy, "a request in the worker")
        worker.kill(signal.SIGSTOP)
        server.wait_log(r"was stopped")
        server.kill(number)
        worker.wait_gone(15)  # half of graceful_timeout
    assert load.record.statuses == {200: 1}, load.record
    if number is signal.SIGTERM:
        assert server.wait() == 0
