"""Mistakes that only the shipped unit makes possible: each is one line in `systemctl status`, with the way out."""

import pytest

from tests.support.machine import Machine
from tests.support.service import PLAIN, deploy
from tests.support.waiting import eventually


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
            {"CONFIG": "/srv/closed/sdserve.conf.py"},
            "the config file /srv/closed/sdserve.conf.py cannot be read: Permission denied: "
            "this user may not search /srv/closed",
        ),
        (
            {"ACCESSLOG": "/var/log/access.log"},
            "cannot open the log file /var/log/access.log: Read-only file system; "
            "this unit's place for log files is /var/log/sdserve",
        ),
        ({"WSGI_APP": ""}, "(SDSERVE_WSGI_APP in the unit's EnvironmentFile=, for example /etc/sdserve/sdserve.env)"),
        ({"USER": "root"}, "cannot become user 0: only root may (Operation not permitted); leave the setting user out"),
        ({"DAEMON": "1"}, "daemon (environment SDSERVE_DAEMON): systemd supervises this process: leave it out"),
    ],
)
def test_the_status_says_what_to_do(machine: Machine, settings: dict[str, str], said: str) -> None:
    machine.write("/home/me/app/plain.py", PLAIN)
    machine.write("/home/me/app/sdserve.conf.py", "workers = 1\n")
    machine.write("/srv/closed/sdserve.conf.py", "workers = 1\n")
    machine.run("chmod", "700", "/srv/closed")
    service = deploy(machine, settings=settings, start=False)
    machine.systemctl("start", service.unit, check=False)
    assert machine.get(service.unit, "ActiveState") == "failed", machine.story()
    assert said in service.status


@pytest.mark.parametrize(
    ("drop_in", "result"),
    [
        ("ReadWritePaths=/srv/project/media", "exit-code"),
        ("DynamicUser=no\nUser=nobody-of-that-name", "exit-code"),
        ("WorkingDirectory=/srv/project", "exit-code"),
        ("EnvironmentFile=/etc/sdserve/typo.env", "resources"),
        ("ExecStart=\nExecStart=/bin/sh -c 'kill -SEGV $$$$'", "signal"),
        ("UnsetEnvironment=SDSERVE_WSGI_APP", "exit-code"),
    ],
)
def test_what_cannot_start_is_tried_about_once_a_second(machine: Machine, drop_in: str, result: str) -> None:
    """By systemd, or by a client that waits: no loop of either may cost more."""
    service = deploy(machine, drop_in=f"[Service]\n{drop_in}\n")

    def failures() -> list[int]:
        said = [entry for entry in machine.journal("UNIT=" + service.unit) if "Failed with" in str(entry["MESSAGE"])]
        assert all(f"'{result}'" in str(entry["MESSAGE"]) for entry in said), machine.story()
        return [int(entry["__MONOTONIC_TIMESTAMP"]) for entry in said]

    with service.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: len(failures()) >= 4, "four failures")
        times = failures()
    assert times[3] - times[0] > 2_500_000, machine.story()
