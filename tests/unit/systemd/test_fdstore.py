"""The descriptor store: whether there is one, and what goes into it."""

import os
from pathlib import Path

import pytest

from sdserve.systemd import fdstore
from sdserve.systemd.notify import Notifier
from tests.support.notify import NotifySocket


@pytest.mark.parametrize(("most", "keeps"), [("2", True), ("512", True), ("1", False), ("", False), ("x", False)])
def test_systemd_says_how_many_it_keeps(most: str, keeps: bool) -> None:
    environ = {"FDSTORE": most}
    assert fdstore.offered(environ) is keeps
    assert environ == {}


def test_both_ends_of_the_queue_are_stored_by_name(short_path: Path) -> None:
    with NotifySocket(str(short_path / "notify")) as manager, open(os.devnull) as file:
        fdstore.store(Notifier(manager.address), dict.fromkeys(fdstore.NAMES, file.fileno()))
        for name in fdstore.NAMES:
            assert "FDSTORE=1" in manager.wait(f"FDNAME={name}")
