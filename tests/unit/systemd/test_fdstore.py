"""The descriptor store: whether there is one, and what goes into it."""

import os
import select
import socket
from collections.abc import Sequence
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


class Deaf(Notifier):
    """Hears all but the message that `misses` numbers."""

    misses = 0

    def _deliver(self, message: str, fds: Sequence[int] = ()) -> bool:
        self.misses -= 1
        return self.misses != 0 and super()._deliver(message, fds)


@pytest.mark.parametrize("missed", [1, 2, 3])
def test_a_part_alone_is_no_proof(short_path: Path, missed: int) -> None:
    """systemd had no room for a moment: one end of a queue without the other is of no use."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, open(os.devnull) as file:
        manager.bind(str(short_path / "notify"))
        notifier = Deaf(str(short_path / "notify"))
        notifier.misses = missed
        proof = fdstore.Proof(notifier, dict.fromkeys(fdstore.NAMES, file.fileno()))
        assert select.select([proof], [], [], 15)[0]
        proof.close()


def test_what_is_to_be_forgotten_by_a_name_is_forgotten_before_the_next_is_kept(short_path: Path) -> None:
    with NotifySocket(str(short_path / "notify")) as manager, open(os.devnull) as file:
        notifier = Deaf(manager.address)
        notifier.misses = 1
        fdstore.keep_counters(notifier, file.fileno(), fresh=True)
        manager.wait("FDSTOREREMOVE=1")
        manager.wait("FDSTORE=1", since=1)
        assert ["FDSTORE=1" in each for each in manager.messages] == [False, True]


def test_without_anybody_who_listens_nothing_is_kept() -> None:
    proof = fdstore.Proof(Notifier(None), {})
    assert select.select([proof], [], [], 15)[0]
    proof.close()
