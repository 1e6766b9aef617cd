"""The demo, where systemd runs the machine: it serves by the shipped units, and takes everything away again."""

import pytest

from tests.support.machine import CHECKOUT, Machine

pytestmark = pytest.mark.once

COPY = """
mkdir /srv/private && cd "$1" && cp -r .venv contrib sdserve units pyproject.toml /srv/private && cd /srv/private
. contrib/setup.sh && basis >.venv/.installed-demo
chmod -R go= /srv/private
"""


def test_it_serves_and_leaves_nothing_behind(machine: Machine) -> None:
    before = sorted(machine.path("/run/systemd/system").iterdir())

    shown = machine.run(CHECKOUT / "contrib" / "demo", "--once").stdout

    assert "Hello from sdserve" in shown
    assert "active (running)" in shown
    assert "2 of 2 workers" in shown
    assert sorted(machine.path("/run/systemd/system").iterdir()) == before
    assert not machine.path("/run/sdserve-demo").exists()
    assert not list(machine.path("/run").glob("sdserve-demo*"))
    assert "sdserve-demo" not in machine.systemctl("list-units", "--all", "--plain", "--no-legend").stdout


def test_a_port_that_is_in_use_is_named(machine: Machine) -> None:
    machine.install("other.socket", "[Socket]\nListenStream=127.0.0.1:8000\nAccept=yes\n")
    machine.install("other@.service", "[Service]\nExecStart=/bin/true\n")
    machine.reload_units()
    machine.systemctl("start", "other.socket")
    done = machine.run(CHECKOUT / "contrib" / "demo", "--once", check=False)
    assert done.returncode == 1
    assert "8000 is in use" in done.stdout


def test_a_port_that_is_no_number_is_named(machine: Machine) -> None:
    for port in ("abc", "8000x", "", "100000"):
        done = machine.run(CHECKOUT / "contrib" / "demo", "--port", port, check=False)
        assert done.returncode == 2
        assert f"--port needs a number, not '{port}'" in done.stdout
        assert len(done.stdout.splitlines()) == 1


def test_a_checkout_that_the_services_user_may_not_read_is_named(machine: Machine) -> None:
    """As git and pip make one under umask 077."""
    machine.run("sh", "-c", COPY, "sh", CHECKOUT)
    done = machine.run("/srv/private/contrib/demo", "--once", check=False)
    assert done.returncode == 1
    assert "may not read .venv/bin" in done.stdout
    assert len(done.stdout.splitlines()) == 1

    machine.run("chmod", "-R", "go+rX", "/srv/private/.venv", "/srv/private/sdserve", "/srv/private/contrib")
    assert "Hello from sdserve" in machine.run("/srv/private/contrib/demo", "--once").stdout
