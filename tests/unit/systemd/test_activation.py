"""Passed sockets: only those meant for this process, with their names, and nothing left in the environment."""

import json
import os
import socket
import sys
from collections.abc import Mapping

import pytest

from sdserve.systemd.activation import VARIABLES, variables

CHILD = """
import json, os, sys
from sdserve.systemd import activation
os.environ["LISTEN_PID"] = sys.argv[1].replace("SELF", str(os.getpid()))
found = activation.take(os.environ)
json.dump({
    "passed": [[each.fd, each.name] for each in found],
    "inheritable": [os.get_inheritable(each.fd) for each in found],
    "left": [name for name in activation.VARIABLES if name in os.environ],
}, sys.stdout)
"""


def asked(environ: Mapping[str, str], listen_pid: str = "SELF") -> dict[str, object]:
    """What a process finds that was started with two sockets at 3 and 4."""
    read, write = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        high = [os.dup(one.fileno()), os.dup(two.fileno())]
        far = [(os.POSIX_SPAWN_DUP2, fd, 100 + index) for index, fd in enumerate((*high, write))]
        near = [(os.POSIX_SPAWN_DUP2, 100, 3), (os.POSIX_SPAWN_DUP2, 101, 4), (os.POSIX_SPAWN_DUP2, 102, 1)]
        clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        pid = os.posix_spawn(
            sys.executable, [sys.executable, "-c", CHILD, listen_pid], {**clean, **environ}, file_actions=[*far, *near]
        )
        for fd in (*high, write):
            os.close(fd)
    with os.fdopen(read) as answer:
        text = answer.read()
    assert os.waitpid(pid, 0)[1] == 0
    found: dict[str, object] = json.loads(text)
    return found


@pytest.mark.parametrize(
    ("names", "passed"),
    [
        ({"LISTEN_FDNAMES": "web:admin"}, [[3, "web"], [4, "admin"]]),
        ({"LISTEN_FDNAMES": "web:web"}, [[3, "web"], [4, "web"]]),
        ({}, [[3, "unknown"], [4, "unknown"]]),
    ],
)
def test_the_sockets_in_order_with_their_names(names: dict[str, str], passed: list[list[object]]) -> None:
    found = asked({"LISTEN_FDS": "2", **names})
    assert found == {"passed": passed, "inheritable": [False, False], "left": []}


def test_those_of_another_process_are_not_ours() -> None:
    assert asked({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, "1") == {"passed": [], "inheritable": [], "left": []}


def test_none() -> None:
    assert asked({})["passed"] == []


def test_the_environment_for_a_successor() -> None:
    told = variables(17, ["web", "odd:name", ""])
    assert told == {"LISTEN_PID": "17", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:odd_name:"}
