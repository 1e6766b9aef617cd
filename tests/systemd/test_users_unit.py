"""A unit of a user's own service manager (systemctl --user): activated, reloaded, upgraded, and asked with --user."""

from tests.support.load import get
from tests.support.machine import Machine
from tests.support.service import PLAIN

MANAGER = """
[Service]
Type=notify
User=daemon
Delegate=yes
RuntimeDirectory=theirs
Environment=XDG_RUNTIME_DIR=/run/theirs SYSTEMD_UNIT_PATH=/srv/units:/usr/lib/systemd/user HOME=/tmp
ExecStart=/lib/systemd/systemd --user
KillMode=mixed
"""
SOCKET = "[Socket]\nListenStream=127.0.0.1:8123\n"
SERVICE = """
[Service]
Type=notify
NotifyAccess=exec
RuntimeDirectory=shop
Environment=SDSERVE_WSGI_APP=app:application SDSERVE_CHDIR=/srv/app SDSERVE_WORKERS=1
ExecStart=/opt/sdserve/bin/sdserve
ExecReload=/opt/sdserve/bin/sdservectl reload
KillMode=mixed
"""
AS_USER = ("setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "env", "XDG_RUNTIME_DIR=/run/theirs")


def test_it_is_found_with_user(machine: Machine) -> None:
    def run(*argv: str, check: bool = True) -> str:
        return machine.run(*AS_USER, *argv, check=check).stdout

    machine.write("/srv/app/app.py", PLAIN)
    machine.write("/srv/units/shop.socket", SOCKET)
    machine.write("/srv/units/shop.service", SERVICE)
    machine.install("theirs.service", MANAGER)
    machine.reload_units()
    machine.systemctl("start", "theirs.service")
    run("systemctl", "--user", "start", "shop.socket")
    assert get(lambda: machine.connect(("127.0.0.1", 8123))).status == 200

    sdservectl = "/opt/sdserve/bin/sdservectl"
    assert "generation 1" in run(sdservectl, "--user", "-u", "shop", "wait")
    run("systemctl", "--user", "reload", "shop.service")
    assert "generation 2" in run(sdservectl, "status", "--user", "-u", "shop")
    assert run(sdservectl, "upgrade", "--user", "-u", "shop").startswith("upgraded, the new master is pid ")
    shown = run("systemctl", "--user", "show", "shop.service", "-p", "ActiveState,StatusText")
    assert "ActiveState=active" in shown and "upgrade succeeded" in shown
    assert "there is no unit none.service" in run(sdservectl, "--user", "-u", "none", "status", check=False)
    said = machine.run(sdservectl, "-u", "shop", "status", check=False).stdout
    assert "with --user, your own service manager's are asked" in said
