"""Where a master's adoption queue comes from."""

import os
import socket

import pytest

from sdserve.arbiter.adoption import Adoption
from sdserve.process.adoption import AdoptionQueue, HandedConnection
from sdserve.systemd import fdstore
from sdserve.systemd.activation import Passed
from sdserve.systemd.notify import Notifier


def closed(adoption: Adoption) -> None:
    adoption.queue.send_end.close()
    adoption.queue.receive_end.close()


@pytest.mark.parametrize("names", [fdstore.NAMES, fdstore.NAMES[::-1]])
def test_both_ends_from_the_store_are_the_queue(names: tuple[str, ...]) -> None:
    old = AdoptionQueue.new()
    ends = dict(zip(fdstore.NAMES, old.fds(), strict=True))
    found = Adoption.found([Passed(os.dup(ends[name]), name) for name in names], [], kept=False)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert len(old.offer([HandedConnection(ours, "x")])[0]) == 1
        taken = found.queue.take()
        assert taken
        for each in taken:
            each.sock.close()
    closed(found)
    old.send_end.close()
    old.receive_end.close()


def test_who_waits_in_a_queue_of_one_end_does_not_wait_for_ever() -> None:
    """systemd had room for one of them alone."""
    old = AdoptionQueue.new()
    ours, theirs = socket.socketpair()
    assert len(old.offer([HandedConnection(ours, "x")])[0]) == 1
    ours.close()
    alone = os.dup(old.receive_end.fileno())
    old.send_end.close()
    old.receive_end.close()
    found = Adoption.found([Passed(alone, fdstore.ADOPTION_RECEIVE)], [], kept=True)
    theirs.settimeout(15)
    assert theirs.recv(1) == b""
    theirs.close()
    closed(found)


@pytest.mark.parametrize("known", [True, False])
def test_a_queue_that_systemd_did_not_hear_of_is_kept_if_it_has_it_already(known: bool) -> None:
    old = AdoptionQueue.new()
    found = Adoption.found([], [os.dup(fd) for fd in old.fds()] if known else [], kept=True)
    proof = found.store(Notifier("/nobody/listens"))
    assert proof is not None
    assert not proof.heard
    assert found.kept is known
    found.refused()
    assert not found.kept
    assert found.store(Notifier("/nobody/listens")) is None
    proof.close()
    closed(found)
    closed(Adoption(old, kept=False))
