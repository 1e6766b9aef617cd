"""A scripted day: journalctl finds exactly its events by their MESSAGE_IDs, and explains each of them."""

import json
import signal
import time
from importlib.resources import files

from sdserve.events import EVENTS
from tests.support.machine import Machine
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

APP = """
import time

def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/slow"):
        time.sleep(30)
    if environ["PATH_INFO"] == "/raise":
        raise ValueError("two\\nlines")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
BROKEN = "raise RuntimeError('not today')\n"
HOSTILE = '/slow?"\\x27%0aMESSAGE_ID=1%00<0>%(a)s|:1|c'


def told(machine: Machine, service: Service, since: float) -> list[dict[str, str]]:
    """The service's events, as `journalctl MESSAGE_ID=... -o json` has them."""
    ids = [f"MESSAGE_ID={event.id}" for event in EVENTS]
    machine.run("journalctl", "--sync")
    done = machine.run("journalctl", "-q", "-a", "-o", "json", f"--since=@{since:.6f}", f"--unit={service.unit}", *ids)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for entry in found:
        [event] = [event for event in EVENTS if event.id == entry["MESSAGE_ID"]]
        assert entry["SDSERVE_EVENT"] == event.name
        assert {f"SDSERVE_{name}" for name in event.fields} <= entry.keys()
    return found


def test_a_scripted_day(machine: Machine) -> None:
    settings = {"WORKERS": "1", "TIMEOUT": "1", "GRACEFUL_TIMEOUT": "2"}
    service = deploy(machine, {"app.py": APP}, "app:application", settings=settings)
    day: list[str] = []
    since = time.time()

    def so_far(*names: str) -> dict[str, str]:
        """These events, and no others, have come by now; returns the last one."""
        day.extend(names)
        entries = eventually(
            lambda: known if len(known := told(machine, service, since)) >= len(day) else [], f"{day}", 30
        )
        assert [entry["SDSERVE_EVENT"] for entry in entries] == day, machine.story()
        return entries[-1]

    service.wake()
    so_far("starting", "ready")
    assert service.ask("/raise").status == 500
    assert "two\nlines" in so_far("request-failed")["MESSAGE"]
    machine.systemctl("reload", service.unit)
    assert so_far("reloaded")["SDSERVE_GENERATION"] == "2"
    machine.write("/srv/app/app.py", BROKEN)
    machine.systemctl("reload", service.unit, check=False)
    assert "not today" in so_far("reload-failed")["SDSERVE_REASON"]
    machine.write("/srv/app/app.py", APP)
    service.workers[0].kill(signal.SIGKILL)
    entry = so_far("worker-died")
    assert entry["PRIORITY"] == "3" and "SIGKILL" in entry["SDSERVE_END"]
    eventually(lambda: service.ask().status == 200, "a worker that serves")
    with service.connect() as sock:
        sock.sendall(f"GET {HOSTILE} HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\n\r\n".encode())
        entry = so_far("worker-timeout", "request-timeout")
    assert entry["SDSERVE_REQUEST"] == f"GET {HOSTILE.replace('<0>', chr(92) + 'x3c0>')}" and entry["PRIORITY"] == "2"
    assert "time.sleep(30)" in entry["SDSERVE_STACK"]
    explained = machine.run("journalctl", "-x", "-a", f"MESSAGE_ID={entry['MESSAGE_ID']}").stdout
    assert "A request took longer than timeout" not in explained
    machine.write("/usr/lib/systemd/catalog/sdserve.catalog", (files("sdserve") / "sdserve.catalog").read_text())
    machine.run("journalctl", "--update-catalog")
    explained = machine.run("journalctl", "-x", "-a", f"MESSAGE_ID={entry['MESSAGE_ID']}").stdout
    assert "A request took longer than timeout: GET /slow" in explained and "Give what it waits for" in explained
    listed = machine.run("journalctl", "--list-catalog").stdout
    assert all(event.id in listed for event in EVENTS)
    eventually(lambda: service.ask().status == 200, "a worker that serves")
    service.upgrade()
    so_far("upgrade-started", "starting", "ready", "handed-over", "stopped", "promoted")
    machine.systemctl("stop", service.unit)
    so_far("stopped")
