"""Whose places become the service's: never the system's, nor another user's, because a project says so."""

import pytest

from sdserve.ops.places import Place, Project

ROOTS, MINE = Project("/srv/shop", ""), Project("/home/me/shop", "me")


def directory(path: str, owner: str = "", new: bool = False) -> Place:
    return Place(path, owner, real=path, new=new)


def database(path: str, owner: str = "", directory_owner: str = "", new: bool = False) -> Place:
    return Place(path, owner, True, directory_owner, path, new)


@pytest.mark.parametrize(
    "place",
    [
        directory("/srv/shop/media"),
        directory("/srv/shop"),
        directory("/srv/media", "deploy"),
        directory("/srv/media", new=True),
        database("/srv/shop/db.sqlite3"),
        database("/srv/shop/data/db.sqlite3", "", "deploy"),
        database("/srv/data/db.sqlite3", "deploy", "deploy"),
        database("/srv/data/db.sqlite3", new=True),
    ],
)
def test_a_project_of_roots_has_what_is_its_own_what_is_made_for_it_and_what_is_no_longer_roots(place: Place) -> None:
    assert ROOTS.may_have(place)


@pytest.mark.parametrize(
    "place",
    [
        database("/tmp/test.db"),
        database("/db.sqlite3"),
        database("/etc/shadow"),
        database("/srv/data/db.sqlite3", "deploy", ""),
        directory("/srv/shop-media"),
        directory("/srv"),
        Place("/srv/shop/data", "", real="/etc"),
    ],
)
def test_it_has_nothing_else_of_roots(place: Place) -> None:
    assert not ROOTS.may_have(place)
    assert not Project("/", "").may_have(place)
    assert Project("/srv/shop", "", "deploy").may_have(place)  # no owner changes then


@pytest.mark.parametrize(
    ("place", "has"),
    [
        (directory("/home/me/shop/media", "me"), True),
        (database("/srv/data/db.sqlite3", "me", "me"), True),
        (directory("/home/me/shop/media", ""), False),
        (database("/home/me/shop/db.sqlite3", "", "me"), False),
        (database("/home/you/db.sqlite3", "you", "you"), False),
        (database("/etc/shadow"), False),
        (directory("/etc/systemd/system/ssh.service.d", new=True), False),
    ],
)
def test_a_project_of_somebody_elses_has_what_is_his(place: Place, has: bool) -> None:
    assert MINE.may_have(place) is has
    assert Project(MINE.directory, "me", "deploy").may_have(place) is has
