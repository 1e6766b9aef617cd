"""Forking a worker, and what happens when there is no room for one."""

import os
import resource
import signal
from collections.abc import Callable

from tests.support.server import Server
from tests.support.waiting import eventually


def test_a_fork_that_failed_is_tried_again(start: Callable[..., Server]) -> None:
    """The service goes on with the workers that it has, and nothing else need happen for the next attempt."""
    server = start("-w", "1", "-b", "127.0.0.1:0", "plain:application").wait_ready()
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    full = max(map(int, os.listdir(f"/proc/{server.pid}/fd"))) + 1
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (full, before[1]))
    server.kill(signal.SIGTTIN)
    server.wait_log(r"no room for a worker process: Too many open files; see LimitNOFILE= \(2 in a row")
    eventually(lambda: "no room for a worker" in server.status(), "the status says why")
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
    server.wait_workers(2)
    eventually(lambda: server.status().endswith("2 of 2 workers serving, generation 1"), "and that it is over")
