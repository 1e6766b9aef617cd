"""The units as shipped: systemd finds nothing to complain of, and they hold what they promise."""

from tests.support.load import get
from tests.support.machine import Machine
from tests.support.service import deploy
from tests.support.waiting import eventually


def test_systemd_finds_no_fault(machine: Machine) -> None:
    for unit in ("sdserve.socket", "sdserve.service", "sdserve@.socket", "sdserve@.service"):
        machine.install(unit)
    machine.reload_units()
    for unit in ("sdserve.socket", "sdserve.service", "sdserve@shop.socket", "sdserve@shop.service"):
        done = machine.run("systemd-analyze", "verify", "--man=no", f"/run/systemd/system/{unit}")
        assert "sdserve" not in done.stdout, done.stdout


def test_nothing_is_left_behind(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    assert machine.path("/run/sdserve/control").is_socket()
    machine.systemctl("stop", service.socket, service.unit)
    assert not machine.path("/run/sdserve").exists()
    assert not machine.processes(service.unit)


def test_one_worker_that_is_killed_does_not_end_the_service(machine: Machine) -> None:
    """The OOM killer ends one process, and systemd by default the rest of the unit."""
    service = deploy(machine)
    service.wake()
    assert machine.get(service.unit, "OOMPolicy") == "continue"


def test_log_files_have_a_place(machine: Machine) -> None:
    service = deploy(machine, settings={"ACCESSLOG": "/var/log/sdserve/access.log"})
    service.wake()
    service.ask("/here")
    eventually(lambda: "/here" in machine.path("/var/log/sdserve/access.log").read_text(), "the access record")


def test_a_typo_in_the_environment_file_is_mended_by_a_start(machine: Machine) -> None:
    """Nobody has to know of reset-failed: nothing was tried again, and the socket listens on."""
    service = deploy(machine)
    service.wake()
    good = {"WSGI_APP": "plain:application", "CHDIR": "/srv/app", "WORKERS": "2"}
    service.configure(good | {"WORKRES": "4"})
    assert machine.systemctl("restart", service.unit, check=False).returncode != 0
    machine.wait_for(service.unit, ActiveState="failed", Result="exit-code", ExecMainStatus="1", NRestarts="0")
    assert "WORKRES" in service.status
    machine.wait_for(service.socket, ActiveState="active", Result="success")
    service.configure(good)
    machine.systemctl("start", service.unit)
    assert service.ask().status == 200
    service.check(workers=2)


def test_where_clients_wait_a_mended_typo_needs_no_command(machine: Machine) -> None:
    """Each of them starts the service once more, and none of them wears its socket out."""
    service = deploy(machine)
    service.wake()
    good = {"WSGI_APP": "plain:application", "CHDIR": "/srv/app", "WORKERS": "2"}

    def failed_starts() -> int:
        entries = machine.journal(f"_SYSTEMD_UNIT={service.unit}")
        return sum("WORKRES" in entry.get("MESSAGE", "") for entry in entries)

    with service.load(clients=4, think=0.01) as load:
        load.wait_answers(10)
        service.configure(good | {"WORKRES": "4"})
        assert machine.systemctl("restart", service.unit, check=False).returncode != 0
        eventually(lambda: failed_starts() > 6, "more starts for who waits than systemd's limit", 60)
        machine.wait_for(service.socket, ActiveState="active", Result="success")
        service.configure(good)
        load.wait_answers(50)
    service.check(workers=2)


ATTACKS = {
    "its environment": "open(f'/proc/{pid}/environ').read()",
    "its control socket": "socket.socket(socket.AF_UNIX).connect(f'/run/sdserve-{victim}/control')",
    "its life": "os.kill(pid, 0)",
    "its files": "os.listdir(f'/var/lib/sdserve-{victim}/')",
}
ATTACKER = """
import os, socket
def application(environ, start_response):
    pid, victim = environ["PATH_INFO"][1:].split("/")
    pid, said = int(pid), []
    for attack in {attacks!r}:
        try:
            eval(attack)
            said.append("done")
        except OSError as error:
            said.append(type(error).__name__)
    start_response("200 OK", [])
    return [" ".join(said).encode()]
"""


def test_instances_cannot_reach_each_other(machine: Machine) -> None:
    """The application of one has a hole: what others have in memory, on disk and to say is safe from it."""
    for unit in ("sdserve@.socket", "sdserve@.service"):
        machine.install(unit)
    machine.drop_in("sdserve@.service", "[Service]\nProtectProc=default\n")  # what is invisible could not be tried
    machine.reload_units()
    machine.write("/srv/app/attacker.py", ATTACKER.format(attacks=list(ATTACKS.values())))
    for name in ("shop", "blog"):
        settings = "SDSERVE_WSGI_APP=attacker:application\nSDSERVE_CHDIR=/srv/app\nSECRET=x\n"
        machine.write(f"/etc/sdserve/{name}.env", settings, mode=0o600)
        machine.systemctl("start", f"sdserve@{name}.socket", f"sdserve@{name}.service")
    pids = {name: machine.main_pid(f"sdserve@{name}.service") for name in ("shop", "blog")}

    def attack(victim: str) -> list[str]:
        answer = get(lambda: machine.connect("/run/sdserve-blog.sock"), f"/{pids[victim]}/{victim}")
        return answer.body.decode().split()

    assert attack("blog") == ["done"] * len(ATTACKS), "each of them works on oneself"
    assert set(attack("shop")) <= {"PermissionError", "FileNotFoundError"}, "its directory is not even there"
    assert {name: machine.main_pid(f"sdserve@{name}.service") for name in pids} == pids
