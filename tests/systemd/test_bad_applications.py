"""What cannot serve says so: exit status, one clear line, and `systemctl status` shows it."""

import pytest

from tests.support.machine import Machine
from tests.support.service import deploy
from tests.support.waiting import eventually

pytestmark = pytest.mark.once

GOOD = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
DEATH = "def post_fork(server, worker):\n    raise RuntimeError('no licence today')\n"

CASES = {
    "syntax error": ("def application(:\n", "app:application", "", 3, ("app.py", "1")),
    "missing module": (GOOD, "absent:application", "", 3, ("absent",)),
    "missing module of the application": ("import requirement_x\n" + GOOD, "app", "", 3, ("requirement_x",)),
    "wrong callable": (GOOD, "app:aplication", "", 4, ("aplication", "application")),
    "death in post_fork": (GOOD, "app:application", DEATH, 3, ("post_fork", "RuntimeError", "no licence today")),
}


@pytest.mark.parametrize("errorlog", ["-", "/var/log/sdserve/errors.log"])
@pytest.mark.parametrize("case", CASES)
def test_exit_status_and_reason(machine: Machine, case: str, errorlog: str) -> None:
    """All of it is where the operator looks, whether or not the service has a log file."""
    source, app, config, status, words = CASES[case]
    settings = {"CONFIG": "/srv/app/conf.py", "ERRORLOG": errorlog}
    service = deploy(machine, {"app.py": source, "conf.py": config}, app, settings)

    assert machine.systemctl("start", service.unit, check=False).returncode != 0

    machine.wait_for(service.unit, ActiveState="failed", Result="exit-code", ExecMainStatus=str(status), NRestarts="0")
    assert all(word in service.status for word in words), service.status
    shown = machine.systemctl("status", "--no-pager", service.unit, check=False).stdout
    assert f"status={status}" in shown
    assert any(all(word in line for word in words) for line in shown.splitlines() if "Status:" in line), shown
    said = [line for line in machine.unit_messages(service.unit) if all(w in line for w in words)]
    assert said, machine.story()


def test_a_client_that_waits_has_a_broken_application_tried_again_until_it_is_mended(machine: Machine) -> None:
    service = deploy(machine, {"app.py": "def application(:\n"}, "app")
    with service.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        eventually(
            lambda: len([line for line in machine.messages("-u", service.unit) if "app.py" in line]) > 8, "tries", 60
        )
        machine.wait_for(service.socket, ActiveState="active")
        machine.write("/srv/app/app.py", GOOD)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
