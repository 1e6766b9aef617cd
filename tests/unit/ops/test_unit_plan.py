"""Which user, which names, which places: what `sdserve unit` decides, without a disk."""

import pytest

from sdserve.ops import unit_plan, units
from sdserve.ops.places import Place
from sdserve.ops.project import STATE, Found
from sdserve.ops.unit_plan import Plan

DATABASE = "/srv/shop/db.sqlite3"


def plan(*writes: Place, user: str = "", **changes: object) -> Plan:
    given: dict[str, object] = {"app": "shop.wsgi", "name": "shop", "directory": "/srv/shop", "prefix": "/opt/venv"}
    given |= {"python": "/usr/bin/python3.11", "found": Found("wsgi", "flask"), "user": user, "writes": writes}
    return Plan(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "user", "given_away"),
    [
        (plan(), "", []),
        (plan(user="deploy"), "deploy", []),
        (plan(Place(DATABASE, "", True, "")), "sdserve-shop", ["/srv/shop", DATABASE]),
        (plan(Place(DATABASE, "deploy", True, "deploy")), "deploy", []),
        (plan(Place(DATABASE, "", True, "deploy")), "deploy", [DATABASE]),
        (plan(Place(DATABASE, "", True, ""), user="deploy"), "deploy", []),
        (plan(Place("/srv/media", "")), "sdserve-shop", ["/srv/media"]),
    ],
)
def test_as_whom_it_serves(made: Plan, user: str, given_away: list[str]) -> None:
    assert (made.owner, made.given_away) == (user, given_away)
    service = made.service()
    assert f"\nUser={user or 'sdserve-shop'}\n" in service
    assert ("\nDynamicUser=yes\n" in service) is (not user)
    assert ("systemd-sysusers" in made.files()["install.sh"]) is (user == "sdserve-shop")


def test_what_lies_where_it_writes() -> None:
    made = plan(Place(DATABASE, "", True, ""), Place("/srv/media", "me"))
    paths = ("/srv/shop/shop-units", "/srv/media", "/srv/shop-units", "/root")
    assert [made.writes_above(path) for path in paths] == ["/srv/shop", "/srv/media", "", ""]


def test_what_is_missing_is_made() -> None:
    made = plan(Place("/srv/data/shop.db", "", True, ""), Place("/home/me/my media", "me"), user="shop")
    assert [
        line for line in made.files()["install.sh"].splitlines() if line.startswith("[ -e") and "logrotate" not in line
    ] == [
        '[ -e /srv/data ] || install -d -m 755 -o shop -g "$(id -g shop)" /srv/data',
        "[ -e '/home/me/my media' ] || runuser -u me -- mkdir -p '/home/me/my media'",
    ]


def test_what_homes_hide_is_bound() -> None:
    made = plan(Place("/home/me/data", "me"), directory="/home/me/shop", prefix="/home/me/shop/.venv")
    assert (made.bound, made.writable) == (["/home/me/shop"], ["/home/me/data"])
    assert 'BindReadOnlyPaths="/home/me/shop"\nBindPaths="/home/me/data"\nProtectHome=tmpfs\n' in made.service()
    with pytest.raises(ValueError, match="has a quote"):
        plan(directory='/home/me/"shop"').service()
    assert plan(directory="/tmp/shop").bound == ["/tmp/shop"]
    assert "ProtectHome=yes" in plan(directory="/tmp/shop").service()


@pytest.mark.parametrize(
    ("directory", "shut", "closed"),
    [
        ("/srv/shop", ["/srv/shop"], "/srv/shop"),
        ("/srv/shop", ["/opt", "/opt/venv"], "/opt"),
        ("/srv/shop", ["/home"], ""),
        ("/home/me/shop", ["/home/me"], ""),
        ("/home/me/shop", ["/home/me", "/home/me/shop"], "/home/me/shop"),
    ],
)
def test_what_keeps_its_user_out(directory: str, shut: list[str], closed: str) -> None:
    """What homes hide is shown at its place, so a home may be shut."""
    assert plan(directory=directory).closed(lambda each: each not in shut) == closed


@pytest.mark.parametrize(
    ("app", "directory", "name"),
    [
        ("shop.wsgi:application", "/srv/project", "shop"),
        ("app:app", "/srv/Mein Laden", "mein-laden"),
        ("main:app", "/srv/café", "caf"),
        ("config.wsgi", "/", "application"),
        ("a_very_long_name_of_a_package.wsgi", "/srv/x", "a_very_long_name_of_a_p"),
    ],
)
def test_names(app: str, directory: str, name: str) -> None:
    assert unit_plan.name_of(app, directory) == name
    assert unit_plan.NAME.fullmatch(name)


def test_a_signed_file_shows_whether_it_was_changed() -> None:
    for name, text in plan(Place(DATABASE, ""), with_=("strict",), catalogue="-- 0\n").files().items():
        assert unit_plan.is_ours(text), name
        assert not unit_plan.is_ours(text + "\n# mine"), name
        assert not unit_plan.is_ours(text.replace("# Written by", "# By", 1)), name


def test_the_same_is_written_each_time() -> None:
    assert plan(with_=("gpus", "strict")).files() == plan(with_=("gpus", "strict")).files()


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        (Found("wsgi", "django", debug=True), "DEBUG is on"),
        (Found("wsgi", "django", hosts=()), "ALLOWED_HOSTS is empty"),
        (Found("wsgi", "django", has_static=True), "STATIC_ROOT is not set"),
        (Found("wsgi", "django", has_static=True, static="/srv/static"), "serves them from /srv/static"),
        (Found("wsgi", "django", files=(f"{STATE}/db",)), "/var/lib/sdserve-shop"),
        (
            Found("wsgi", "django", files=(f"{STATE}/db",)),
            "-p User=sdserve-shop -p DynamicUser=yes -p StateDirectory=sdserve-shop ",
        ),
        (
            Found("asgi", "fastapi", error="it took too long"),
            "not imported, nor served until it can be (it took too long)",
        ),
    ],
)
def test_hints(found: Found, hint: str) -> None:
    assert any(hint in each for each in plan(found=found).hints())


def test_who_makes_the_database() -> None:
    found = Found("wsgi", "django", "shop.settings", files=(DATABASE,))
    hints = list(plan(Place(DATABASE, "", True, ""), found=found).hints())
    service = "-p User=sdserve-shop -p WorkingDirectory=/srv/shop -p EnvironmentFile=-/etc/sdserve/shop.env"
    django = "--setenv=DJANGO_SETTINGS_MODULE=shop.settings /opt/venv/bin/python manage.py migrate"
    command = f"systemd-run --collect --wait --pipe {service} {django}"
    assert f"run manage.py migrate as sdserve-shop, who may not write to what root makes: {command}" in hints


def test_one_text_of_the_service_for_all_uses() -> None:
    """What the shipped unit says for everybody, that of an application says, too."""
    own = plan(found=Found("wsgi", settings="shop.settings")).service().splitlines()
    differ = [line for line in units.PLAIN.text().splitlines() if line not in own and not line.startswith("#")]
    assert [line.partition("=")[0] for line in differ] == [
        *("Description", "Requires", "After", "EnvironmentFile", "ExecStart", "ExecReload"),
        *("RuntimeDirectory", "StateDirectory", "LogsDirectory", "Also"),
    ]
