"""A service leaves a real HAProxy by `sdservectl drain` under load, and comes back by `undrain`: no request is lost.

HAProxy hears of it by the agent-check of docs/how-to/metrics.md; another service has the traffic meanwhile.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.proxies import program, proxy
from tests.support.server import CHECKOUT, Server, connector, free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.once

PAGE = (CHECKOUT / "docs" / "how-to" / "metrics.md").read_text()
BALANCED = """frontend web
    mode http
    bind 127.0.0.1:{0}
    default_backend services
backend services
    mode http
    balance roundrobin
    http-reuse always
{1}
"""


def balanced(name: str, port: int, agent: int) -> str:
    """The page's line of a server, under another name, at other ports, and asked more often."""
    found = re.search(r"^server app1 .* agent-check .*$", PAGE, re.MULTILINE)
    assert found is not None
    line = found[0]
    for word, other in (("app1", name), (":8000", f":{port}"), ("9392", str(agent)), ("inter 2s", "inter 50ms")):
        assert word in line
        line = line.replace(word, other)
    return f"    {line}"


def test_a_service_leaves_and_comes_back(start: Callable[..., Server], short_path: Path) -> None:
    program("haproxy")
    control = f"{short_path}/control"

    def operate(*args: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "sdserve.ctl", "-s", control, *args]
        environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ)

    def said(command: "subprocess.Popen[str]") -> str:
        told, _ = command.communicate(timeout=60)
        assert command.returncode == 0, told
        return told

    lines, services = [], []
    for name, options in (("leaves", ("--control-socket", control)), ("stays", ())):
        port, agent = free_port(), free_port()
        where = ("-b", f"127.0.0.1:{port}", "--agent-bind", f"127.0.0.1:{agent}")
        services.append(start("-w", "1", *where, *options, "plain:application"))
        lines.append(balanced(name, port, agent))
    leaves, stays = (service.wait_ready().wait_workers(1)[0].pid for service in services)
    front = free_port()

    with (
        proxy("haproxy", short_path, front, BALANCED.format(front, "\n".join(lines))),
        Load(connector(("127.0.0.1", front)), clients=4, think=0.005) as load,
    ):

        def who_answers() -> set[int]:
            """The workers that answered a number of requests, which all came later than this question."""
            load.wait_answers(8)
            before = len(load.record.answers)
            load.wait_answers(16)
            return {answer.pid for answer in load.record.answers[before:]}

        eventually(lambda: who_answers() == {leaves, stays}, "both answer")
        drain = operate("drain", "--for", "600")
        eventually(lambda: who_answers() == {stays}, "the other one has the traffic")
        assert said(operate("drain", "--for", "0")) == "drained: all connections have ended\n"
        assert said(drain) == "drained: all connections have ended\n"
        assert who_answers() == {stays}
        assert said(operate("undrain")).startswith("taken back: Running: 1 of 1 worker")
        eventually(lambda: who_answers() == {leaves, stays}, "both answer again")
    assert not load.record.lost, load.record
    assert set(load.record.statuses) == {200}
