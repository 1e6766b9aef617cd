"""Received descriptors: all of them, and none that a program could inherit."""

import os
import socket

import pytest

from sdserve.process import rights


def test_close_on_exec_from_the_first_moment() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [b"two"], [0, 1])
        data, fds, lost = rights.receive(theirs, 100)
    assert (data, len(fds), lost) == (b"two", 2, False)
    assert not any(map(os.get_inheritable, fds))
    for fd in fds:
        os.close(fd)


def test_too_many_are_noticed() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [0] * 5)
        _, fds, lost = rights.receive(theirs, 100, most=2)
    assert lost
    for fd in fds:
        os.close(fd)


def test_nothing_there() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            rights.receive(theirs, 100)
        ours.close()
        assert rights.receive(theirs, 100) == (b"", [], False)
