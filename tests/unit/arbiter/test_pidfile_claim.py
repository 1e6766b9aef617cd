"""The pidfile of a master: what a disk without room may cost it, and how it is made good for."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdserve.arbiter.pidfile_claim import PidfileClaim
from sdserve.process.pidfile import Pidfile
from tests.unit.arbiter.services import service

OWN = f"{os.getpid()}\n"


@contextmanager
def no_room() -> Iterator[None]:
    """No byte can be written to a file (SIGXFSZ is ignored in Python)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def claim() -> PidfileClaim:
    host: Any = SimpleNamespace(pidfile=Pidfile, pid=os.getpid)
    return PidfileClaim(host, service().log)


def names(path: Path) -> dict[str, str]:
    return {each.name: each.read_text() for each in path.iterdir()}


def test_a_promotion_needs_no_room(claim: PidfileClaim, tmp_path: Path) -> None:
    claim.make(str(tmp_path / "pid"), second=True)
    with no_room():
        claim.promote()
    assert names(tmp_path) == {"pid": OWN}


def test_a_promotion_that_failed_is_made_good_for_by_the_next_reload(claim: PidfileClaim, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    claim.make(str(path), second=True)
    path.write_text(f"{os.getppid()}\n")  # somebody else's, who runs
    claim.promote()
    assert names(tmp_path) == {"pid": f"{os.getppid()}\n", "pid.2": OWN}
    path.unlink()
    claim.follow(str(path), second=False)
    assert names(tmp_path) == {"pid": OWN}


def test_another_path_needs_no_room_and_where_it_cannot_be_the_file_stays(claim: PidfileClaim, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    claim.make(str(old), second=False)
    claim.follow(str(tmp_path / "none" / "pid"), second=False)
    assert names(tmp_path) == {"old": OWN}
    with no_room():
        claim.follow(str(new), second=False)
    assert names(tmp_path) == {"new": OWN}
    claim.follow(None, second=False)
    assert not names(tmp_path)


def test_a_file_that_somebody_took_away_is_made_again(claim: PidfileClaim, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    claim.make(str(path), second=False)
    path.unlink()
    claim.follow(str(path), second=False)
    assert names(tmp_path) == {"pid": OWN}
    claim.end()
    assert not names(tmp_path)
