"""Working directory and import path, where a deploy turns a symbolic link."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdserve.config import paths


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's directory and import path are as before afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(paths, "_added", [])
    before = os.getcwd()
    yield
    os.chdir(before)


@pytest.fixture
def deployed(tmp_path: Path) -> Path:
    """`current`, a link to the release `one`, with a release `two` beside it."""
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
    (tmp_path / "current").symlink_to("one")
    return tmp_path / "current"


def test_the_working_directory_is_named_through_its_link(deployed: Path) -> None:
    os.chdir(deployed)
    assert paths.logical_cwd({"PWD": str(deployed)}) == str(deployed)


@pytest.mark.parametrize("pwd", ["/", "/no/such/directory", "", "."])
def test_a_wrong_pwd_is_not_believed(deployed: Path, pwd: str) -> None:
    os.chdir(deployed)
    assert paths.logical_cwd({"PWD": pwd}) == str(deployed.resolve())


def test_a_turned_link_is_followed_when_entered_again(deployed: Path) -> None:
    paths.enter(str(deployed), [])
    deployed.unlink()
    deployed.symlink_to("two")
    assert Path.cwd().name == "one"
    paths.enter(str(deployed), [])
    assert Path.cwd().name == "two"


def test_the_directories_come_first_in_their_order(tmp_path: Path) -> None:
    paths.enter(str(tmp_path), ["/srv/a", "/srv/b"])
    assert sys.path[:3] == ["/srv/a", "/srv/b", str(tmp_path)]


def test_those_of_the_configuration_before_are_gone(tmp_path: Path) -> None:
    before = list(sys.path)
    paths.enter(str(tmp_path), ["/srv/a"])
    paths.enter(str(tmp_path), ["/srv/b"])
    assert sys.path == ["/srv/b", str(tmp_path), *before]


def test_what_others_put_on_the_path_stays_where_it_is(tmp_path: Path) -> None:
    sys.path.append("/srv/theirs")
    before = list(sys.path)
    paths.enter(str(tmp_path), ["/srv/theirs"])
    assert sys.path == [str(tmp_path), *before]
    paths.lead_imports([])
    assert sys.path == before


@pytest.mark.parametrize(
    ("path", "closed"),
    [
        ("/opt/venv/bin/python", ""),
        ("/root/.pyenv/bin/python", "/root"),
        ("/srv/mine/python", "/srv/mine"),
        ("/srv/mine", ""),
        ("/python", ""),
    ],
)
def test_the_part_of_a_path_that_is_in_the_way_is_named(path: str, closed: str) -> None:
    assert paths.barrier(path, lambda directory: directory not in ("/root", "/srv/mine")) == closed


def test_modules_that_came_since_are_found(tmp_path: Path) -> None:
    paths.enter(str(tmp_path), [])
    with pytest.raises(ImportError):
        __import__("came_since_the_last_entry")
    (tmp_path / "came_since_the_last_entry.py").write_text("HERE = True\n")
    paths.enter(str(tmp_path), [])
    assert __import__("came_since_the_last_entry").HERE
