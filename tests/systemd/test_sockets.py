"""Several sockets of several units: told apart by name and address, all served, all kept over an upgrade."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from tests.support.load import Load, get
from tests.support.machine import UNITS as SHIPPED
from tests.support.machine import Machine
from tests.support.service import PLAIN, Service, deploy
from tests.support.walkthrough import steps

UNITS = {
    "public": "ListenStream=127.0.0.1:8001\nListenStream=[::1]:8002\nFileDescriptorName=public\n",
    "proxy": "ListenStream=/run/proxy.sock\nFileDescriptorName=proxy\n",
    "admin": "ListenStream=/run/admin.sock\n",
}
NO_STORE = "[Service]\nFileDescriptorStoreMax=0\nEnvironment=SDSERVE_FD_STORE=0\n"
ADDRESSES: list[tuple[str, int] | str] = [
    ("127.0.0.1", 8000),
    ("127.0.0.1", 8001),
    ("::1", 8002),
    "/run/proxy.sock",
    "/run/admin.sock",
]


@contextmanager
def asking(machine: Machine, addresses: list[tuple[str, int] | str]) -> Iterator[None]:
    """Clients that ask on and on at each of the addresses, whatever becomes of them."""
    with ExitStack() as stack:
        loads = [Load(partial(machine.connect, each), clients=1, reuse=0, think=0.005) for each in addresses]
        for load in loads:
            stack.enter_context(load)
            load.wait(lambda record: record.answers or record.failures, "the first request")
        yield


def deploy_many(machine: Machine) -> Service:
    service = deploy(machine, drop_in=NO_STORE + "Sockets=public.socket proxy.socket admin.socket\n", start=False)
    for name, text in UNITS.items():
        machine.install(f"{name}.socket", f"[Socket]\n{text}Service={service.unit}\n")
    machine.reload_units()
    machine.systemctl("start", service.socket, *(f"{name}.socket" for name in UNITS))
    return service


@pytest.mark.parametrize("first", range(len(ADDRESSES)))
def test_every_socket_starts_and_serves(machine: Machine, first: int) -> None:
    service = deploy_many(machine)
    for address in [ADDRESSES[first], *ADDRESSES]:
        assert get(partial(machine.connect, address)).body == b"hello", address
    service.check(workers=2)


def test_all_sockets_outlive_reload_upgrade_and_restart(machine: Machine) -> None:
    service = deploy_many(machine)
    service.ask()
    changes: list[Callable[[], object]] = [
        lambda: machine.systemctl("reload", service.unit),
        service.upgrade,
        lambda: machine.systemctl("restart", service.unit),
    ]
    for change in changes:
        change()
        for address in ADDRESSES:
            assert get(partial(machine.connect, address)).body == b"hello", address
    assert machine.get(service.unit, "NRestarts") == "0"


@pytest.mark.parametrize("listen", ["ListenDatagram=127.0.0.1:9999", "ListenSequentialPacket=/run/packets"])
def test_a_socket_that_cannot_carry_http_is_refused_by_name(machine: Machine, listen: str) -> None:
    service = deploy(machine, drop_in="[Service]\nSockets=odd.socket\n", start=False)
    machine.install("odd.socket", f"[Socket]\n{listen}\nFileDescriptorName=odd\nService={service.unit}\n")
    machine.reload_units()
    assert machine.systemctl("start", "odd.socket", service.unit, check=False).returncode != 0
    machine.wait_for(service.unit, ActiveState="failed")
    assert "odd" in service.status
    machine.systemctl("stop", "odd.socket")


def test_instances_of_the_template_live_side_by_side(machine: Machine) -> None:
    for unit in ("sdserve@.socket", "sdserve@.service"):
        machine.install(unit)
    machine.reload_units()
    machine.write("/srv/app/plain.py", PLAIN)
    for name in ("shop", "blog"):
        machine.write(
            f"/etc/sdserve/{name}.env",
            f"SDSERVE_WSGI_APP=plain:application\nSDSERVE_CHDIR=/srv/app\nNAME={name}\n",
        )
        machine.systemctl("start", f"sdserve@{name}.socket")
    for name in ("shop", "blog"):
        answer = get(partial(machine.connect, f"/run/sdserve-{name}.sock"), "/environ/NAME")
        assert answer.body == name.encode()
        machine.systemctl("reload", f"sdserve@{name}.service")
    assert machine.main_pid("sdserve@shop.service") != machine.main_pid("sdserve@blog.service") != 0


def test_the_page_says_how_sockets_are_changed_and_added_while_the_service_runs(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    machine.drop_in(service.socket, "[Socket]\nListenStream=\nListenStream=127.0.0.1:8003\n")
    machine.install("more.socket", f"[Socket]\nListenStream=127.0.0.1:8004\nService={service.unit}\n")
    machine.drop_in(service.unit, "[Service]\nSockets=more.socket\n")
    [step] = steps("docs/how-to/service.md", "Sockets")
    with asking(machine, [ADDRESSES[0]]):  # nobody waits for systemctl
        machine.run("sh", "-euc", step.script)
    for port in (8003, 8004):
        assert get(partial(machine.connect, ("127.0.0.1", port))).status == 200
    service.check(workers=2)
    with pytest.raises(ConnectionRefusedError):
        service.connect()


def test_metrics_are_turned_on_while_the_service_runs(machine: Machine) -> None:
    """As the page says. No client is refused, although systemd starts no socket beside a service that runs."""
    service = deploy(machine)
    service.wake()
    machine.install("sdserve-metrics.socket")
    try:
        with service.load(clients=1, think=0.01) as load:
            for command in metrics_commands():
                machine.run(*command.replace(" enable ", " enable --runtime ").split())  # units lie in /run here
            load.wait_answers(1)
        assert not load.record.lost
        assert get(partial(machine.connect, ("127.0.0.1", 9391)), "/readyz").status == 200
    finally:
        machine.systemctl("disable", "--runtime", "--now", "sdserve-metrics.socket")


def metrics_commands() -> list[str]:
    """The lines of docs/how-to/metrics.md for systemctl."""
    script = next(steps("docs/how-to/metrics.md", "Turn it on")).script
    return [line for line in script.splitlines() if line.startswith("systemctl ")]


def test_a_service_that_is_asked_all_the_while_stops_with_all_of_its_sockets(machine: Machine) -> None:
    """By the command of the page, and comes back with all of them. A scrape starts a service as any client does."""
    scraped: list[tuple[str, int] | str] = [("127.0.0.1", 9391), ("127.0.0.1", 9392)]
    sockets = ["sdserve-metrics.socket", "sdserve-agent.socket"]
    service = deploy(machine)
    metrics = (SHIPPED / sockets[0]).read_text()
    machine.install(sockets[0])
    machine.install(sockets[1], metrics.replace("9391", "9392").replace("=metrics", "=agent"))
    machine.reload_units()
    machine.systemctl("start", *sockets)
    service.wake()
    [step] = steps("docs/how-to/operate.md", "Leave a load balancer")
    [stop] = [line for line in step.script.splitlines() if line.startswith("systemctl stop ")]
    with asking(machine, [ADDRESSES[0], *scraped]):
        machine.run(*stop.split())
        states = {unit: machine.get(unit, "ActiveState") for unit in (service.unit, service.socket, *sockets)}
        assert set(states.values()) == {"inactive"}, states
    machine.systemctl("enable", "--runtime", *sockets)
    try:
        machine.systemctl("start", service.unit)
        for address in (ADDRESSES[0], *scraped):
            machine.connect(address).close()
    finally:
        machine.systemctl("disable", "--runtime", *sockets)
