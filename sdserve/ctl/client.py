"""Asking a master: the client's side of the control socket, in sdservectl's own dialect."""

import errno
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from sdserve.ops.answers import is_answer

Answer = dict[str, Any]
QUEUE_AGAIN = 0.02  # seconds between two attempts to get into the queue of connections
START_AGAIN = 0.1  # seconds between two attempts to reach a service that is to come
LONGEST = 64 << 20  # bytes of an answer: the stacks of a thousand workers are a part of that


def ask(path: str, command: str, timeout: float | None, **parameters: Any) -> Answer:
    """Sends one command to the control socket at `path` and waits `timeout` seconds (None: for ever) for the answer.

    Raises OSError if nobody listens there, or the master ends before it answers; TimeoutError if the time is over.
    """
    for answer in follow(path, command, timeout, **parameters):
        if not answer.get("continues"):
            return answer
    raise AssertionError("`follow` ends with an answer")


def follow(path: str, command: str, timeout: float | None, **parameters: Any) -> Iterator[Answer]:
    """The answers to one command, each within `timeout` seconds; the last has no `continues`. Raises OSError.

    A new master that has taken over meanwhile, and the socket with it, is asked again.
    """
    while True:
        for answer in _answers(path, command, timeout, parameters):
            if answer.get("again"):
                break
            yield answer
        else:
            return


def _connect(connection: socket.socket, path: str, timeout: float | None) -> None:
    """Connects, and waits for a place in the queue if it is full. Whatever is read later has `timeout` seconds, too."""
    until = None if timeout is None else time.monotonic() + timeout
    connection.settimeout(timeout)
    while True:
        try:
            connection.connect(path)
            return
        except BlockingIOError:  # the queue is full: with a time-out connect(2) does not wait for it
            if until is not None and time.monotonic() >= until:
                raise TimeoutError from None
            time.sleep(QUEUE_AGAIN)


def _answers(path: str, command: str, timeout: float | None, parameters: dict[str, Any]) -> Iterator[Answer]:
    request = {"command": command} | {name: value for name, value in parameters.items() if value is not None}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        _connect(connection, path, timeout)
        with suppress(BrokenPipeError):  # a refusal may have come before the question
            connection.sendall(json.dumps(request).encode() + b"\n")
        received = bytearray()
        while True:
            try:
                data = connection.recv(65536)
            except BlockingIOError:  # a time-out of 0 seconds
                raise TimeoutError from None
            if not data:
                raise ConnectionResetError("the master ended before it answered")
            received += data
            if b"\n" not in data:
                if len(received) > LONGEST:
                    raise _no_master()
                continue
            *lines, received = received.split(b"\n")
            for line in lines:
                answer = _read(command, line)
                yield answer
                if not answer.get("continues"):
                    return


def _read(command: str, line: bytearray) -> Answer:
    """Raises OSError for what no master says to this command."""
    with suppress(ValueError, RecursionError):  # the latter: nested too deep
        answer = json.loads(line)
        if is_answer(command, answer):
            return dict(answer)
    raise _no_master()


def _no_master() -> OSError:
    return OSError(errno.EPROTO, "another server answers there")
