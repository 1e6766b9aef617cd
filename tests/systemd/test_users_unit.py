"""A unit of a user's own service manager (systemctl --user), as docs/how-to/service.md has it: activated, reloaded,
upgraded, and asked with --user."""

from tests.support.load import get
from tests.support.machine import Machine
from tests.support.service import PLAIN
from tests.support.walkthrough import steps

MANAGER = """
[Service]
Type=notify
User=daemon
Delegate=yes
RuntimeDirectory=theirs
Environment=XDG_RUNTIME_DIR=/run/theirs HOME=/srv/theirs
ExecStart=/lib/systemd/systemd --user
KillMode=mixed
"""
AS_USER = (
    "setpriv",
    "--reuid=daemon",
    "--regid=daemon",
    "--clear-groups",
    "env",
    "XDG_RUNTIME_DIR=/run/theirs",
    "HOME=/srv/theirs",
)


def test_it_is_found_with_user(machine: Machine) -> None:
    def run(*argv: str, check: bool = True) -> str:
        return machine.run(*AS_USER, *argv, check=check).stdout

    machine.write("/srv/theirs/shop/shop.py", PLAIN)
    machine.run("chown", "-R", "daemon:", "/srv/theirs")
    machine.install("theirs.service", MANAGER)
    machine.reload_units()
    machine.systemctl("start", "theirs.service")
    [step] = steps("docs/how-to/service.md", "Serve without root")
    run("sh", "-euc", step.script)
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
