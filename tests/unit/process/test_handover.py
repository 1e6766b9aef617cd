"""The line between two masters: messages, descriptors, and the end of either side."""

import os
import socket

import pytest

from sdserve.process.handover import VARIABLE, Handover


def close(*ends: Handover) -> None:
    for end in ends:
        end.close()


def test_messages_arrive_whole_and_in_order() -> None:
    ours, theirs = Handover.pair()
    assert theirs.receive() is None
    assert ours.send("hello", listeners=[{"activated": True}])
    assert ours.send("main")
    assert theirs.receive() == {"type": "hello", "listeners": [{"activated": True}], "fds": []}
    assert (theirs.receive() or {})["type"] == "main"
    assert theirs.receive() is None
    close(ours, theirs)


def test_what_was_sent_is_heard_before_the_end() -> None:
    ours, theirs = Handover.pair()
    ours.send("hello")
    ours.close()
    assert (theirs.receive() or {})["type"] == "hello"
    assert theirs.receive() == {"type": "gone"}
    theirs.close()


def test_descriptors_come_along() -> None:
    ours, theirs = Handover.pair()
    read, write = os.pipe()
    ours.send("main", fds=[write])
    os.close(write)
    message = theirs.receive() or {}
    [copy] = message["fds"]
    assert not os.get_inheritable(copy)
    os.write(copy, b"x")
    assert os.read(read, 1) == b"x"
    for fd in (read, copy):
        os.close(fd)
    close(ours, theirs)


def test_nobody_hears() -> None:
    ours, theirs = Handover.pair()
    theirs.close()
    assert not ours.send("ready")
    assert ours.receive() == {"type": "gone"}
    ours.close()


def test_unread_messages_at_the_end_are_no_error() -> None:
    ours, theirs = Handover.pair()
    ours.send("hello")
    theirs.close()  # with the message unread
    assert ours.receive() == {"type": "gone"}
    ours.close()


def test_the_peer_is_who_made_the_pair() -> None:
    ours, theirs = Handover.pair()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if theirs.peer_pid() == os.getppid() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    close(ours, theirs)


def test_inherited_by_number() -> None:
    ours, theirs = Handover.pair()
    number = os.dup(theirs.fileno())
    os.set_inheritable(number, True)
    environ = {VARIABLE: str(number), "OTHER": "stays"}
    end = Handover.inherited(environ)
    assert end is not None and environ == {"OTHER": "stays"}
    assert not os.get_inheritable(number)
    ours.send("hello")
    assert (end.receive() or {})["type"] == "hello"
    close(ours, theirs, end)


@pytest.mark.parametrize("text", ["", "x", "-1", "100000"])
def test_nothing_inherited(text: str) -> None:
    environ = {VARIABLE: text}
    assert Handover.inherited(environ) is None
    assert environ == {}
    assert Handover.inherited({}) is None


def test_a_number_that_is_no_socket_any_more() -> None:
    read, write = os.pipe()
    assert Handover.inherited({VARIABLE: str(read)}) is None
    os.close(read)
    os.close(write)


def test_both_ends_never_block() -> None:
    ours, theirs = Handover.pair()
    for end in (ours, theirs):
        with socket.socket(fileno=os.dup(end.fileno())) as sock:
            assert sock.type == socket.SOCK_SEQPACKET
        assert not os.get_blocking(end.fileno())
    close(ours, theirs)
