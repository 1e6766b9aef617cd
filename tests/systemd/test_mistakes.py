"""Mistakes that only the shipped unit makes possible: each is one line in `systemctl status`, with the way out."""

import pytest

from tests.support.machine import Machine
from tests.support.service import PLAIN, deploy


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"CHDIR": "/home/me/app"},
            "SDSERVE_CHDIR: '/home/me/app' is not a directory: Permission denied; ProtectHome= of the unit hides homes",
        ),
        (
            {"CONFIG": "/home/me/app/sdserve.conf.py"},
            "the config file /home/me/app/sdserve.conf.py cannot be read: Permission denied; ProtectHome= of the unit",
        ),
        (
            {"ACCESSLOG": "/var/log/access.log"},
            "cannot open the log file /var/log/access.log: Read-only file system; "
            "this unit's place for log files is /var/log/sdserve",
        ),
        ({"USER": "root"}, "cannot become user 0: only root may (Operation not permitted); leave the setting user out"),
        ({"DAEMON": "1"}, "daemon (environment SDSERVE_DAEMON): systemd supervises this process: leave it out"),
    ],
)
def test_the_status_says_what_to_do(machine: Machine, settings: dict[str, str], said: str) -> None:
    machine.write("/home/me/app/plain.py", PLAIN)
    machine.write("/home/me/app/sdserve.conf.py", "workers = 1\n")
    service = deploy(machine, settings=settings, start=False)
    machine.systemctl("start", service.unit, check=False)
    assert machine.get(service.unit, "ActiveState") == "failed", machine.story()
    assert said in service.status
