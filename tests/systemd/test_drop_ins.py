"""The shipped drop-ins: each holds what it promises, and the locks are as tight as the pages say."""

import os
import re
import signal
import stat
from collections.abc import Callable

import pytest

from sdserve.ops.units import drop_in, shipped
from tests.support.load import ask
from tests.support.machine import CHECKOUT, UNITS, Machine
from tests.support.service import PLAIN, Service, deploy
from tests.support.statsd import Statsd

EXPOSURE = re.compile(r"exposure level for .*: ([0-9.]+)")


@pytest.mark.parametrize(
    ("names", "limit"),
    [([], 1.2), (["isolated"], 0.2), (["strict"], 1.1), (["strict", "isolated"], 0.2), (["gpus"], 1.4)],
    ids=lambda value: "+".join(value) or "shipped" if isinstance(value, list) else "",
)
@pytest.mark.parametrize("unit", ["sdserve.service", "sdserve@.service"])
def test_systemd_finds_little_exposed(machine: Machine, unit: str, names: list[str], limit: float) -> None:
    machine.write(f"/tmp/{unit}", "".join([shipped()[unit], *map(drop_in, names)]))
    said = machine.run("systemd-analyze", "security", "--offline=true", "--no-pager", f"/tmp/{unit}").stdout
    level = EXPOSURE.search(said)
    assert level and float(level[1]) <= limit, said


def deployed(machine: Machine, *names: str, app: str = PLAIN, more: str = "", **settings: str) -> Service:
    service = deploy(machine, {"plain.py": app}, settings=settings, start=False)
    for name in names:
        machine.drop_in(service.unit, drop_in(name) + more, f"{name}.conf")
    machine.reload_units()
    machine.systemctl("start", service.socket)
    return service


def test_a_whole_life_behind_all_locks(machine: Machine) -> None:
    """Reload, upgrade, restart, kill -9 under requests, with idle connections that outlive each of them."""
    service = deployed(machine, "strict", "isolated", KEEPALIVE="60")
    service.wake()
    idle = [service.connect() for _ in range(20)]
    for client in idle:
        ask(client)
    deeds: dict[str, Callable[[], object]] = {
        "reload": lambda: machine.systemctl("reload", service.unit),
        "upgrade": service.upgrade,
        "restart": lambda: machine.systemctl("restart", service.unit),
    }
    with service.load(clients=4) as load:
        for name, deed in deeds.items():
            load.wait_answers(20)
            old = service.workers
            before = {worker.inner for worker in old}
            deed()
            for worker in old:
                worker.wait_gone()
            assert not {ask(client).pid for client in idle} & before, name
        load.wait_answers(20)
    assert not load.record.failures, load.record
    assert int(machine.get(service.unit, "NFileDescriptorStore")) > 1

    service.master.kill(signal.SIGKILL)
    machine.wait_for(service.unit, ActiveState="active", NRestarts="1")
    assert {ask(client).status for client in idle} == {200}
    service.check(workers=2)
    assert "2 of 2 workers" in machine.run("/opt/sdserve/bin/sdservectl", "status").stdout, "root asks from outside"
    machine.systemctl("stop", service.unit)
    machine.wait_for(service.unit, ActiveState="inactive", Result="success")


def test_isolated_reaches_statsd_by_a_unix_socket_and_by_udp_with_the_drop_in_of_the_page(machine: Machine) -> None:
    page = (CHECKOUT / "docs" / "how-to" / "metrics.md").read_text()
    found = re.search(r"# /etc/systemd/system/sdserve\.service\.d/(statsd\.conf)\n(.*?)```", page, re.DOTALL)
    assert found
    with machine.network():
        udp = Statsd()
    unix = Statsd(machine.path("/srv/statsd.socket"))
    machine.path("/srv/statsd.socket").chmod(0o666)
    service = deployed(machine, "isolated", STATSD_HOST="unix:///srv/statsd.socket")
    service.wake()
    unix.wait("gunicorn.requests", 1)

    machine.drop_in(service.unit, found[2], found[1])
    service.configure({"WSGI_APP": "plain:application", "CHDIR": "/srv/app", "STATSD_HOST": udp.address})
    machine.reload_units()
    machine.systemctl("restart", service.unit)
    for _ in range(3):
        assert service.ask().status == 200
    udp.wait("gunicorn.requests", 3)
    assert unix.counts()["gunicorn.requests"] == 1
    for each in (udp, unix):
        each.close()


WHOSE = """
import os
def application(environ, start_response):
    owners = [str(os.stat(path).st_uid) for path in ("/srv/app/plain.py", "/srv/app/others")]
    mine = open("/srv/app/others").read()
    start_response("200 OK", [])
    return [" ".join([*owners, mine, str(os.getuid())]).encode()]
"""


def test_of_users_the_service_knows_its_own_and_root(machine: Machine) -> None:
    """What PrivateUsers= changes, as the page says it."""
    if not machine.user_namespaces:
        pytest.skip("the kernel refuses user namespaces (CLONE_NEWUSER), which PrivateUsers= needs")
    machine.write("/srv/app/others", "legible")
    os.chown(machine.path("/srv/app/others"), 33, 33)
    service = deployed(machine, app=WHOSE)
    root, other, text, own = service.wake().body.decode().split()
    assert (root, other, text) == ("0", "65534", "legible")
    assert int(own) > 60_000, "of a dynamic user"


WRITES = """
import os
def application(environ, start_response):
    with open("/srv/app/media/made", "w") as file:
        file.write("here")
    start_response("200 OK", [])
    return [str(os.getuid()).encode()]
"""


def test_user_serves_as_the_user_that_sysusers_makes(machine: Machine) -> None:
    machine.write("/etc/sysusers.d/sdserve.conf", (UNITS / "sysusers.d" / "sdserve.conf").read_text())
    machine.run("systemd-sysusers", "/etc/sysusers.d/sdserve.conf")
    uid = int(machine.run("id", "-u", "sdserve").stdout)
    try:
        machine.run("install", "-d", "-o", "sdserve", "/srv/app/media")
        service = deployed(machine, "user", app=WRITES, more="ReadWritePaths=/srv/app/media\n")
        assert service.wake().body == str(uid).encode()
        assert machine.path("/srv/app/media/made").stat().st_uid == uid
        machine.systemctl("reload", service.unit)
        service.upgrade()
        assert service.ask().status == 200
    finally:
        machine.systemctl("stop", "sdserve.socket", "sdserve.service")
        machine.run("userdel", "sdserve")


OPENS = """
import os
def application(environ, start_response):
    start_response("200 OK", [])
    try:
        return [b"opened %d" % os.major(os.fstat(os.open("/dev/nvidia0", os.O_RDWR)).st_rdev)]
    except OSError as error:
        return [type(error).__name__.encode()]
"""


def test_gpus_shows_devices(machine: Machine) -> None:
    """A node with the number of /dev/full, which a closed policy lets through, stands in for a GPU's."""
    node = machine.path("/dev/nvidia0")
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    try:
        node.chmod(0o666)
        service = deployed(machine, app=OPENS)
        assert service.wake().body == b"FileNotFoundError"
        machine.drop_in(service.unit, drop_in("gpus"), "gpus.conf")
        machine.reload_units()
        machine.systemctl("restart", service.unit)
        assert service.ask().body == b"opened 1"
        allowed = machine.get(service.unit, "DeviceAllow")
        assert "char-nvidia* rw" in allowed and machine.get(service.unit, "DevicePolicy") == "closed"
    finally:
        node.unlink()


def test_preserve_keeps_idle_connections_over_a_stop(machine: Machine) -> None:
    if machine.systemd < 254:
        pytest.skip(f"systemd {machine.systemd} has no FileDescriptorStorePreserve= (tests/run --debian=trixie has)")
    service = deployed(machine, "preserve", KEEPALIVE="60")
    service.wake()
    idle = [service.connect() for _ in range(20)]
    before = {ask(client).pid for client in idle}
    machine.systemctl("stop", service.unit)
    machine.wait_for(service.unit, ActiveState="inactive", Result="success")
    machine.systemctl("start", service.unit)
    assert not {ask(client).pid for client in idle} & before


HOG = """
hoard = []
def application(environ, start_response):
    while environ["PATH_INFO"] == "/hog":
        hoard.append(b"x" * 1_000_000)
    start_response("200 OK", [])
    return [b"well"]
"""


def test_memory_ends_the_worker_that_takes_too_much(machine: Machine) -> None:
    service = deployed(machine, "memory", app=HOG, more="MemoryHigh=infinity\nMemoryMax=150M\n")
    service.wake()
    shown = machine.show(service.unit, "MemoryMax", "MemorySwapMax", "OOMPolicy")
    assert shown == {"MemoryMax": str(150 << 20), "MemorySwapMax": "0", "OOMPolicy": "continue"}
    if "memory" not in machine.path("/sys/fs/cgroup/cgroup.controllers").read_text().split():
        pytest.skip("the kernel keeps the memory controller in cgroup v1: no limit holds here")
    main = service.main
    with service.connect() as client:
        client.sendall(b"GET /hog HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1)
    service.check(workers=2, main=main)
    assert service.ask().body == b"well"


def test_deferred_a_bare_connection_does_not_start_the_service(machine: Machine) -> None:
    service = deploy(machine, socket_drop_in="[Socket]\nDeferAcceptSec=30\n")
    with service.connect() as bare:
        # What systemd would do about it, it has done when it answers: the connection came first.
        assert machine.get(service.unit, "ActiveState") == "inactive"
        assert service.ask().status == 200
        machine.wait_for(service.unit, ActiveState="active")
        assert ask(bare).status == 200
