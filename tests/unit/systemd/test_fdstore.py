"""The descriptor store: whether there is one, and what goes into it."""

import os
import select
import socket
from pathlib import Path

import pytest

from sdserve.process import rights
from sdserve.systemd import fdstore
from sdserve.systemd.notify import Notifier
from tests.support.notify import NotifySocket


@pytest.mark.parametrize(("most", "keeps"), [("3", True), ("512", True), ("2", False), ("", False), ("x", False)])
def test_systemd_says_how_many_it_keeps(most: str, keeps: bool) -> None:
    environ = {"FDSTORE": most}
    assert fdstore.offered(environ) is keeps
    assert environ == {}


def test_both_ends_of_the_queue_are_stored_by_name(short_path: Path) -> None:
    with NotifySocket(str(short_path / "notify")) as manager, open(os.devnull) as file:
        proof = fdstore.Proof(Notifier(manager.address), dict.fromkeys(fdstore.NAMES, file.fileno()))
        for name in (*fdstore.NAMES, fdstore.PROOF):
            assert "FDSTORE=1" in manager.wait(f"FDNAME={name}")
        proof.close()


def test_a_store_that_keeps_nothing_is_found_out(short_path: Path) -> None:
    """The socket of these tests closes all descriptors that it gets, as a full store does."""
    with NotifySocket(str(short_path / "notify")) as manager:
        proof = fdstore.Proof(Notifier(manager.address), {})
        assert select.select([proof], [], [], 15)[0]
        proof.close()


def test_a_store_that_keeps_it_is_believed(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_path / "notify"))
        proof = fdstore.Proof(Notifier(str(short_path / "notify")), {})
        _, fds, _ = rights.receive(manager, 4096)
        assert not select.select([proof], [], [], 0)[0]
        os.close(fds[0])
        assert select.select([proof], [], [], 15)[0]
        proof.close()


def test_without_anybody_who_listens_nothing_is_kept() -> None:
    proof = fdstore.Proof(Notifier(None), {})
    assert select.select([proof], [], [], 15)[0]
    proof.close()
