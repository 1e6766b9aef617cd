"""`sdserve unit`: from a project to a served page by the two commands that it prints, on a real systemd."""

import json
import os
import shutil
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sdserve.ops import quoting
from tests.support.load import get
from tests.support.machine import Machine
from tests.systemd.test_walkthroughs import BUS, BUS_UNITS

ADDRESS = ("127.0.0.1", 8000)
FLASK = """
from flask import Flask
app = Flask(__name__)
@app.get("/")
def index():
    return "Hello from Flask"
"""
FASTAPI = """
from fastapi import FastAPI
app = FastAPI()
@app.get("/")
async def index():
    return "Hello from FastAPI"
"""
DJANGO = {
    "manage.py": """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "shop/settings.py": """
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.sessions"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
ROOT_URLCONF = "shop.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
""",
    "shop/urls.py": """
from django.contrib.sessions.models import Session
from django.http import HttpResponse
from django.urls import path
def index(request):
    request.session["seen"] = True
    request.session.save()
    return HttpResponse(f"Hello from Django, {Session.objects.count()} sessions")
urlpatterns = [path("", index)]
""",
    "shop/wsgi.py": """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
""",
    "shop/__init__.py": "",
}


@pytest.fixture
def host(machine: Machine) -> Iterator[Machine]:
    """A machine where units can be installed as anywhere: below /etc."""
    machine.run("mount", "--bind", "/run/systemd/system", "/etc/systemd/system")
    before = set(machine.path("/run/systemd/system").iterdir())
    try:
        yield machine
    finally:
        made = set(machine.path("/run/systemd/system").iterdir()) - before
        units = [path.name for path in made if path.is_file()]
        machine.systemctl("stop", *units, check=False)
        for path in made:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        machine.reload_units()
        machine.systemctl("reset-failed", *units, check=False)
        machine.run("umount", "/etc/systemd/system")


def project(machine: Machine, directory: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        machine.write(f"{directory}/{name}", text)


def start_bus(machine: Machine) -> None:
    if shutil.which("dbus-daemon") is None or not machine.path("/usr/bin/dbus-daemon").exists():
        pytest.skip("dbus-daemon is not installed, and systemd-run needs a bus")
    machine.write("/etc/bus.conf", BUS)
    for name, text in BUS_UNITS.items():
        machine.install(name, text)
    machine.reload_units()
    machine.systemctl("start", "dbus.socket", "dbus.service")


def unit(machine: Machine, *argv: str) -> list[str]:
    """What the command prints, without what it says on standard error."""
    script = 'cd "$1"; shift; exec /opt/sdserve/bin/sdserve unit "$@" 2>/dev/null'
    return machine.run("sh", "-c", script, "sh", *argv).stdout.splitlines()


def installed_and_served(machine: Machine, *argv: str, address: tuple[str, int] | str = ADDRESS) -> str:
    """By the printed commands alone; the page."""
    began = time.monotonic()
    commands = unit(machine, *argv)
    assert len(commands) == 2
    for command in commands:
        machine.run("sh", "-euc", command)
    page = get(lambda: machine.connect(address, timeout=60.0)).body.decode()
    print(f"{argv}: served {time.monotonic() - began:.1f} s after `sdserve unit` was called")
    return page


def test_flask_as_a_dynamic_user(host: Machine) -> None:
    project(host, "/srv/laden", {"app.py": FLASK})
    page = installed_and_served(host, "/srv/laden", "app:app", "--with", "strict", "--listen", "unix:/run/laden.sock",
                                address="/run/laden.sock")  # fmt: skip
    assert page == "Hello from Flask"
    host.wait_for("laden.service", ActiveState="active")
    assert host.show("laden.service", "DynamicUser", "MemoryDenyWriteExecute", "User") == {
        "DynamicUser": "yes",
        "MemoryDenyWriteExecute": "yes",
        "User": "sdserve-laden",
    }
    host.systemctl("reload", "laden.service")
    done = host.run("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/laden.service")
    assert "laden" not in done.stdout


def test_django_with_a_database_that_root_made(host: Machine) -> None:
    project(host, "/srv/shop", DJANGO)
    host.run("/opt/sdserve/bin/python", "/srv/shop/manage.py", "migrate", "-v0")
    try:
        page = installed_and_served(host, "/srv/shop", "shop.wsgi:application", "--writable", "/srv/shop data/uploads")
        assert page == "Hello from Django, 1 sessions"
        assert get(lambda: host.connect(ADDRESS)).body == b"Hello from Django, 2 sessions"
        uid = int(host.run("id", "-u", "sdserve-shop").stdout)
        assert host.path("/srv/shop/db.sqlite3").stat().st_uid == uid
        assert host.path("/srv/shop data/uploads").stat().st_uid == uid  # it was missing
        assert host.path("/srv/shop/shop/settings.py").stat().st_uid == 0
        assert not host.path("/srv/shop/shop-units").exists()  # the service owns the directory
    finally:
        host.systemctl("stop", "shop.socket", "shop.service", check=False)
        host.run("userdel", "sdserve-shop", check=False)


def test_django_with_a_database_that_is_made_as_it_is_told(host: Machine) -> None:
    """In the service's environment: the file that its unit reads says which database."""
    start_bus(host)
    said = 'import os\nDATABASES["default"]["NAME"] = os.environ.get("DATABASE", BASE_DIR / "db.sqlite3")\n'
    project(host, "/srv/shop", {**DJANGO, "shop/settings.py": DJANGO["shop/settings.py"] + said})
    host.write("/etc/sdserve/shop.env", "DATABASE=/srv/shop/other.sqlite3\n")
    script = "cd /srv/shop; exec /opt/sdserve/bin/sdserve unit shop.wsgi:application 2>&1 >commands"
    [told] = [line for line in host.run("sh", "-c", script).stdout.splitlines() if "manage.py" in line]
    try:
        install, start = host.path("/srv/shop/commands").read_text().splitlines()
        host.run("sh", "-euc", install)
        host.run("sh", "-euc", told.partition("makes: ")[2])
        host.run("sh", "-euc", start)
        assert get(lambda: host.connect(ADDRESS, timeout=60.0)).body == b"Hello from Django, 1 sessions"
        assert host.path("/srv/shop/other.sqlite3").exists()
        assert not host.path("/srv/shop/db.sqlite3").exists()
    finally:
        host.path("/etc/sdserve/shop.env").unlink()
        host.systemctl("stop", "shop.socket", "shop.service", check=False)
        host.run("userdel", "sdserve-shop", check=False)


def test_fastapi_in_a_home_that_nobody_else_may_enter(host: Machine) -> None:
    host.run("useradd", "-m", "-K", "HOME_MODE=0700", "dev")
    try:
        project(host, "/home/dev/api", {"main.py": FASTAPI})
        host.path("/home/dev").chmod(0o700)
        host.run("chown", "-R", "dev:", "/home/dev")
        assert installed_and_served(host, "/home/dev/api", "main:app") == '"Hello from FastAPI"'
        assert not host.path("/home/dev/api/application-units").exists()  # the user could change what root is to run
        assert host.path("/root/application-units/install.sh").stat().st_uid == 0
        host.wait_for("application.service", ActiveState="active")
    finally:
        host.systemctl("stop", "application.socket", "application.service", check=False)
        host.run("userdel", "-rf", "dev", check=False)


def test_transient(host: Machine) -> None:
    """One line for systemd-run, no file: the first client starts it."""
    start_bus(host)
    place = "/srv/100% mine"
    project(host, place, {"app.py": FLASK})
    [line] = unit(host, place, "app:app", "--transient", "--name", "demo")
    host.run("sh", "-euc", line)
    assert get(lambda: host.connect(ADDRESS)).body == b"Hello from Flask"
    host.wait_for("demo.service", ActiveState="active", ExitType="cgroup")  # who is at work outlives a killed master
    host.systemctl("stop", "demo.socket", "demo.service")


READ_BACK = """
import json, os, sys
places = {name: open(f"/srv/{name}/here").read() for name in os.listdir("/srv")}
values = [os.environ[f"V{number}"] for number in range(int(sys.argv[1]))]
with open("/run/read-back", "w") as file:
    json.dump([values, sys.argv[2:], places], file)
"""
NASTY = [
    "a b",
    "%n",
    "%%",
    "$HOME",
    "${HOME}",
    "$$",
    '"',
    "'",
    "\\",
    "\\\\",
    "a\\",
    "\n",
    "\t",
    "é",
    "€ 日本 🚀",
    ";",
    "#",
    "",
]
NASTY += [
    "a=b",
    " a",
    "a ",
    "\\x41",
    "\\n",
    "%",
    "$",
    "-x",
    "@",
    "!",
    ":",
    "+",
    "*",
    "~",
    "`id`",
    "$(id)",
    "\x7f",
    "\x1b[2J",
]
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=3, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(texts=NASTY)
@given(texts=st.lists(TEXTS, min_size=20, max_size=40))
def test_systemd_reads_what_was_meant(machine: Machine, texts: list[str]) -> None:
    """Environment, arguments, directories, a description: whatever characters they have."""
    names = sorted({text for text in texts if _is_name(text)})
    for name in names:
        place = machine.path("/srv") / name
        place.mkdir(exist_ok=True)
        (place / "here").write_text(name)
    [shown] = [*[text for text in texts if _is_plain(text)], "x"][:1]
    lines = ["[Unit]", f"Description={quoting.plain(shown)}", "[Service]", "Type=oneshot", "TemporaryFileSystem=/srv"]
    lines += [f"Environment={quoting.word(f'V{number}={text}')}" for number, text in enumerate(texts)]
    lines += [f"BindReadOnlyPaths={quoting.bound('/srv/' + name)}" for name in names]
    lines += [f"ExecStart={quoting.command('/usr/bin/python3', '-c', READ_BACK, str(len(texts)), *texts)}", ""]
    machine.install("quoted.service", "\n".join(lines))
    machine.reload_units()
    machine.systemctl("start", "quoted.service")
    values, arguments, places = json.loads(machine.path("/run/read-back").read_text())
    assert values == texts
    assert arguments == texts
    assert places == {name: name for name in names}
    assert machine.get("quoted.service", "Description") == shown


def _is_name(text: str) -> bool:
    """Whether a directory can be called so, and a unit file say so."""
    usable = text not in ("", ".", "..") and not {*"/\"'"} & {*text} and len(os.fsencode(text)) < 255
    return usable and _is_plain(text)


def _is_plain(text: str) -> bool:
    try:
        return bool(quoting.plain(text))
    except ValueError:
        return False
