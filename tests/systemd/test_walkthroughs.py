"""What the pages tell a newcomer to type works as it stands: from an empty virtual environment to a served page."""

import http.client
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.load import get
from tests.support.machine import CHECKOUT, Machine
from tests.support.waiting import eventually
from tests.support.walkthrough import steps, wheelhouse

pytestmark = pytest.mark.once

BUS = """<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/></policy></busconfig>
"""
BUS_UNITS = {  # systemd connects when a service of this name has started (org.freedesktop.systemd1(5))
    "dbus.socket": "[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    "dbus.service": "[Service]\nType=notify\nNotifyAccess=main\n"
    "ExecStart=/usr/bin/dbus-daemon --config-file=/etc/bus.conf --address=systemd: --nofork --nopidfile\n",
}
PIP = ("PIP_NO_INDEX=1", "PIP_FIND_LINKS=/tmp/wheels")


@pytest.fixture
def bare(request: pytest.FixtureRequest, booted_machine: Machine, tmp_path: Path) -> Iterator[Machine]:
    """A machine of its own without sdserve; its pip finds what an index would have, its apt what is installed.

    What has to be compiled is compiled for the README only, with what its line of apt names: the other pages repeat it.
    """
    if request.config.getoption("debian") is not None:
        pytest.skip("the walk-throughs need a compiler, which another Debian's machine has not")
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed, and systemd-run needs a bus")
    machine = Machine.boot(Path(sys.prefix))  # where one boots, so does another
    try:
        machine.run("umount", "-l", "/opt/sdserve")
        machine.run("mount", "--bind", "/run/systemd/system", "/etc/systemd/system")
        machine.run("sh", "-c", "rm -rf /var/lib/apt/lists/*; mkdir /tmp/wheels")  # what is installed is new enough
        name = request.node.name.removeprefix("test_")
        wanted = () if name == "readme" else (name,)
        for wheel in wheelhouse(tmp_path, *wanted, built=bool(wanted)).iterdir():
            (machine.path("/tmp/wheels") / wheel.name).write_bytes(wheel.read_bytes())
        machine.write("/etc/bus.conf", BUS)
        for unit, text in BUS_UNITS.items():
            machine.install(unit, text)
        machine.reload_units()
        machine.systemctl("start", "dbus.socket", "dbus.service")
        yield machine
    finally:
        machine.shut_down()


def follow(machine: Machine, page: str, section: str = "") -> str:
    """Runs each step in the checkout; all that was printed."""
    said = ""
    for step in steps(page, section):
        script = f"cd {CHECKOUT}\n{step.script}"
        done = machine.run("env", *PIP, "sh", "-euc", script, check=False, timeout=300)
        assert done.returncode == 0, f"{step.script}\n{done.stdout}\n{machine.story()}"
        for line in step.prints:
            assert line in done.stdout, f"{step.script}\n{done.stdout}\n{machine.story()}"
        said += done.stdout
        # A reader is not so quick: the first answer comes before the start has ended, and would swallow a reload.
        eventually(lambda: machine.get("sdserve.service", "ActiveState") != "activating", "the end of a start", 60)
    return said


def test_readme(bare: Machine) -> None:
    bare.write("/srv/project/project/wsgi.py", (CHECKOUT / "tests" / "apps" / "plain.py").read_text())
    follow(bare, "README.md", "Deploy")
    assert get(lambda: bare.connect(("127.0.0.1", 8000))).body == b"hello"
    assert "4 of 4 workers serving" in bare.run("sdservectl", "status").stdout


def test_flask(bare: Machine) -> None:
    said = follow(bare, "docs/tutorials/flask.md")
    assert "2 of 2 workers serving" in said
    bare.run("man", "-w", "sdserve", "sdservectl")


def login(machine: Machine) -> None:
    """Through the form of the admin site, as the user that the page has made: this writes to the database."""
    client = http.client.HTTPConnection("127.0.0.1", 8000)
    client.sock = machine.connect(("127.0.0.1", 8000))
    client.request("GET", "/admin/login/")
    answer = client.getresponse()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', answer.read().decode())
    assert token
    fields = {"csrfmiddlewaretoken": token[1], "username": "admin", "password": "secret"}
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    client.close()
    client.sock = machine.connect(("127.0.0.1", 8000))
    client.request("POST", "/admin/login/", urlencode(fields), headers)
    assert client.getresponse().status == 302


def test_django(bare: Machine) -> None:
    follow(bare, "docs/tutorials/django.md")
    database = "/var/lib/sdserve/db.sqlite3"
    main = bare.get("sdserve.service", "MainPID")
    assert bare.run("stat", "-L", "-c", "%u", database).stdout == bare.run("stat", "-c", "%u", f"/proc/{main}").stdout
    login(bare)
