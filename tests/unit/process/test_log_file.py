"""A log file that root makes is the workers' own, and nobody is given by it what was not theirs."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sdserve.process.log_file import open_file

USER = 65534, 65534
SOMEBODY_ELSE = 65533

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place(short_path: Path) -> Path:
    """A directory of root's, on a way that is root's alone but for the sticky /tmp."""
    short_path.chmod(0o755)
    return short_path


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def opened(path: Path) -> None:
    with open_file(str(path), USER) as stream:
        stream.write("hello\n")


def of_the_user(directory: Path) -> None:
    os.chown(directory, *USER)


def of_the_group(directory: Path) -> None:
    os.chown(directory, SOMEBODY_ELSE, USER[1])
    directory.chmod(0o775)


def of_everybody(directory: Path) -> None:
    directory.chmod(0o1777)


@pytest.mark.parametrize("make", [lambda directory: None, of_the_user, of_the_group, of_everybody])
def test_a_new_file_is_theirs(place: Path, make: Callable[[Path], None]) -> None:
    make(place)
    opened(place / "log")
    assert owner(place / "log") == USER
    assert (place / "log").read_text() == "hello\n"


def test_without_another_user_it_is_nobodys_else(place: Path) -> None:
    open_file(str(place / "log"), (0, 0)).close()
    assert owner(place / "log") == (0, 0)


def test_what_was_there_stays_whose_it_was(place: Path) -> None:
    (place / "log").write_text("before\n")
    opened(place / "log")
    assert owner(place / "log") == (0, 0)
    assert (place / "log").read_text() == "before\nhello\n"


def test_a_link_of_roots_is_followed(place: Path) -> None:
    (place / "log").symlink_to(place / "elsewhere")
    opened(place / "log")
    assert (place / "elsewhere").read_text() == "hello\n"


@pytest.mark.parametrize("target", ["there", "not there"])
def test_a_link_of_theirs_is_not(place: Path, target: str) -> None:
    logs = place / "logs"
    logs.mkdir()
    of_the_user(logs)
    (place / "there").touch()
    (logs / "log").symlink_to(place / target)
    with pytest.raises(OSError, match="root follows no symbolic link"):
        opened(logs / "log")
    assert (place / "there").read_text() == ""
    assert not (place / "not there").exists()


def a_link(home: Path, secret: Path) -> Path:
    (home / "logs").symlink_to(secret)
    return home / "logs"


def a_link_by_roots_link(home: Path, secret: Path) -> Path:
    a_link(home, secret)
    (secret / "by").symlink_to(home / "logs")
    return secret / "by"


def a_way_back(home: Path, secret: Path) -> Path:
    (home / "away").symlink_to(secret)
    (secret / "sub").mkdir()
    return home / "away" / "sub" / ".."


@pytest.mark.parametrize("lead", [a_link, a_link_by_roots_link, a_way_back])
def test_nothing_is_theirs_in_a_directory_that_they_lead_to(place: Path, lead: Callable[[Path, Path], Path]) -> None:
    home, secret = place / "home", place / "secret"
    home.mkdir()
    secret.mkdir()
    of_the_user(home)
    opened(lead(home, secret) / "log")
    assert owner(secret / "log") == (0, 0)


def test_no_directory(place: Path) -> None:
    (place / "loop").symlink_to(place / "loop")
    for path in (place / "no" / "log", place / "loop" / "log"):
        with pytest.raises(OSError):
            opened(path)
