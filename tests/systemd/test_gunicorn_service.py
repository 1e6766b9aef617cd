"""A gunicorn.service with the lines of docs/how-to/from-gunicorn.md: reloaded under requests, and killed under them."""

import re
import signal

from tests.support.machine import CHECKOUT, Machine
from tests.support.service import PLAIN, Service
from tests.support.waiting import eventually

PAGE = (CHECKOUT / "docs" / "how-to" / "from-gunicorn.md").read_text()
# What gunicorn's documentation has beside the lines that the page replaces.
UNIT = """[Service]
DynamicUser=yes
WorkingDirectory=/srv/shop
TimeoutStopSec=5
PrivateTmp=true
ProtectSystem=strict
Restart=on-failure
"""


def test_requests_are_finished_over_a_reload_and_the_death_of_the_master(machine: Machine) -> None:
    lines = re.search(r"```ini\n\[Service\]\n(.*?)```", PAGE, re.DOTALL)
    assert lines
    machine.write("/srv/shop/shop/wsgi.py", PLAIN)
    machine.write("/srv/shop/gunicorn.conf.py", "bind = '127.0.0.1:8000'\nworkers = 2\nthreads = 8\n")
    machine.install("gunicorn.service", UNIT + lines[1])
    machine.reload_units()
    service = Service(machine, "gunicorn")
    machine.systemctl("start", service.unit)
    service.check(workers=2)
    for deed in ("reload", "kill"):
        with service.load(clients=4, path="/sleep/2", requests=1) as load:
            busy = lambda: "busy for" in machine.run("/opt/sdserve/bin/sdservectl", "-u", service.unit, "status").stdout  # noqa: E731
            eventually(busy, "requests at work")
            if deed == "reload":
                machine.systemctl("reload", service.unit)
            else:
                service.master.kill(signal.SIGKILL)
        assert load.record.statuses == {200: 4}, (deed, load.record)
    machine.wait_for(service.unit, ActiveState="active", NRestarts="1")
    service.check(workers=2)
    machine.systemctl("stop", service.unit)
