"""What cannot take effect is said: a changed environment file at a reload, an address beside systemd's sockets."""

from tests.support.machine import Machine
from tests.support.service import deploy


def test_a_reload_names_what_of_the_environment_file_has_changed(machine: Machine) -> None:
    service = deploy(machine, settings={"WORKERS": "2", "=GONE": "1"})
    service.wake()
    machine.systemctl("reload", service.unit)
    assert not [line for line in machine.unit_messages(service.unit) if "environment of the unit" in line]

    service.configure({"WSGI_APP": "plain:application", "CHDIR": "/srv/app", "WORKERS": "3", "=FRESH": "1"})
    machine.systemctl("reload", service.unit)
    said = [line for line in machine.unit_messages(service.unit) if "environment of the unit has changed" in line]
    assert len(said) == 1
    assert "(FRESH, GONE, SDSERVE_WORKERS): a reload does not read it, systemctl restart does" in said[0]
    service.check(workers=2)

    service.upgrade()  # a new master has what the old one was started with
    machine.systemctl("reload", service.unit)
    said = [line for line in machine.unit_messages(service.unit) if "environment of the unit has changed" in line]
    assert len(said) == 2

    machine.systemctl("restart", service.unit)
    machine.systemctl("reload", service.unit)
    said = [line for line in machine.unit_messages(service.unit) if "environment of the unit has changed" in line]
    assert len(said) == 2
    service.check(workers=3)


def test_bind_beside_a_socket_unit_is_named_unless_it_says_the_same(machine: Machine) -> None:
    service = deploy(machine, settings={"BIND": "127.0.0.1:8000,0.0.0.0:9000"})
    service.wake()
    line = "bind (environment SDSERVE_BIND): 0.0.0.0:9000 is not used: systemd's sockets are, see ListenStream="
    assert len([said for said in machine.unit_messages(service.unit) if line in said]) == 1
