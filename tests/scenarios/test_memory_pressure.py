"""Memory pressure is told: workers give back what they can, once in a while, and serve on."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.support.server import Server, answer


def test_workers_give_back(start: Callable[..., Server], short_path: Path) -> None:
    fifo = short_path / "fifo"
    os.mkfifo(fifo)
    server = start(
        "-w", "2", "-b", f"unix:{short_path}/s", "plain:application", env={"MEMORY_PRESSURE_WATCH": str(fifo)}
    ).wait_ready()
    with open(fifo, "wb", buffering=0) as systemd:
        systemd.write(b"!")
        for worker in server.wait_workers(2):
            server.wait_log(f"worker {worker.pid} gave back")
        systemd.write(b"!")
    assert answer(str(short_path / "s")).status == 200
    assert server.log.count("workers give back what they can") == 1
    assert "Traceback" not in server.log
