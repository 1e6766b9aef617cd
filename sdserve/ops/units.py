"""The unit files: a template of the service, one of the socket and one of logrotate's rule, filled in for each use.

`units/` of the checkout is made from here (docs/generate.py), and so is what `sdserve unit` writes for an application:
nothing is said twice. The templates lie in unit_files/ beside this file, with `@name@` where the uses differ; the
drop-ins of unit_files/drop-ins fit all of them. Sources: systemd.service(5), systemd.socket(5), systemd.exec(5).
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

FILES = Path(__file__).with_name("unit_files")
DROP_INS = FILES / "drop-ins"
MARK = re.compile(r"@([a-z]+)@")


@dataclass(frozen=True)
class Service:
    """The values that differ between the uses of the service's template: text as it stands in the file, quoted already.

    unit         the units' name without .service and .socket
    directory    the value of RuntimeDirectory=, StateDirectory= and LogsDirectory=
    place        the same directory in comments
    environment  lines that say what to serve
    user         lines that say as whom
    """

    header: str
    description: str
    unit: str
    directory: str
    place: str
    environment: str
    user: str
    sdserve: str = "/opt/sdserve/bin/sdserve"
    reload: str = "/opt/sdserve/bin/sdservectl reload"
    homes: str = "yes"

    def text(self) -> str:
        """The service's unit file."""
        return _filled("service", vars(self))


@dataclass(frozen=True)
class Socket:
    """The same for the socket; `listen` is lines of ListenStream= and of what belongs to them."""

    header: str
    description: str
    listen: str

    def text(self) -> str:
        """The socket's unit file."""
        return _filled("socket", vars(self))


@dataclass(frozen=True)
class Rotation:
    """The same for logrotate(8). Each service has a rule: a directory of logs does not say which service to tell."""

    header: str
    unit: str
    place: str

    def text(self) -> str:
        """The file for /etc/logrotate.d."""
        return _filled("logrotate", vars(self))


def _filled(template: str, values: dict[str, str]) -> str:
    return MARK.sub(lambda mark: values[mark[1]], (FILES / template).read_text())


def drop_ins() -> list[str]:
    """Names of the ready-made drop-ins for the service, without .conf."""
    return sorted(path.stem for path in DROP_INS.glob("*.conf"))


def drop_in(name: str) -> str:
    """The text of a ready-made drop-in."""
    return (DROP_INS / f"{name}.conf").read_text()


WRITTEN = "# Written by docs/generate.py from sdserve/ops/: change it there, or by a drop-in.\n#"


def _header(what: str, project: str, unit: str, beside: str) -> str:
    """What the shipped services say first. `what`: what the unit serves, and where that is written."""
    return f"""{WRITTEN}
# {what}:
#
#   SDSERVE_WSGI_APP={project}.wsgi:application
#   SDSERVE_CHDIR=/srv/{project}
#   SDSERVE_CONFIG=/srv/{project}/sdserve.conf.py
#
# systemd reads it at a start. What a reload shall be able to change, as `workers = 4`, belongs into that config file.
#
# Everything else of this file is changed by drop-ins (systemctl edit {unit}); ready-made ones lie in
# sdserve.service.d beside it{beside}."""


PLAIN = Service(
    header=_header(
        "One application. What to serve stands in /etc/sdserve/sdserve.env, see docs/how-to/service.md",
        *("project", "sdserve.service", ""),
    ),
    description="sdserve application server",
    unit="sdserve",
    directory="sdserve",
    place="sdserve",
    environment="EnvironmentFile=-/etc/sdserve/sdserve.env",
    user="""\
# A user of its own that exists while the service runs. With it come a read-only file system outside of the
# directories above, a private /tmp, and no new privileges. Another user: sdserve.service.d/user.conf.
DynamicUser=yes""",
)

INSTANCE = replace(
    PLAIN,
    header=_header(
        "One application of several: sdserve@shop.service serves what stands in /etc/sdserve/shop.env, see\n"
        "# docs/how-to/several-applications.md",
        *("shop", "sdserve@shop.service", ", and fit sdserve@.service.d, or sdserve@shop.service.d, too"),
    ),
    description="sdserve application server for %i",
    unit="sdserve@%i",
    directory="sdserve-%i",
    place="sdserve-NAME",
    environment="EnvironmentFile=/etc/sdserve/%i.env",
    user="""\
# A user of its own that exists while the service runs, and for each instance another one: none can read what another
# has in memory or on disk, nor signal it. With it come a read-only file system outside of the directories above, a
# private /tmp, and no new privileges. Another user: sdserve.service.d/user.conf.
DynamicUser=yes
User=sdserve-%i""",
)

PLAIN_SOCKET = Socket(
    header=f"""{WRITTEN}
# The listening socket of sdserve.service. systemd holds it: clients wait in its backlog, and are not refused, while the
# service starts, restarts or is replaced. Another address belongs into a drop-in (systemctl edit sdserve.socket):
#
#   [Socket]
#   ListenStream=
#   ListenStream=/run/sdserve.sock
#   SocketMode=0660
#   SocketGroup=www-data""",
    description="Socket of the sdserve application server",
    listen="ListenStream=127.0.0.1:8000",
)

INSTANCE_SOCKET = Socket(
    header=f"""{WRITTEN}
# The listening socket of one application of several: sdserve@shop.socket is that of sdserve@shop.service.
# A Unix socket by default, so that instances do not compete for a port. A TCP address, for one instance, belongs into
# a drop-in (systemctl edit sdserve@shop.socket):
#
#   [Socket]
#   ListenStream=
#   ListenStream=127.0.0.1:8001""",
    description="Socket of the sdserve application server for %i",
    listen="""\
ListenStream=/run/sdserve-%i.sock
# Whoever may connect may send requests with any X-Forwarded-* header. A proxy in front needs to be in the group:
#   SocketGroup=www-data
SocketMode=0660""",
)

PLAIN_ROTATION = Rotation(
    header="# Written by docs/generate.py from sdserve/ops/: the log files of sdserve.service (docs/how-to/logs.md).",
    unit="sdserve",
    place="sdserve",
)


def shipped() -> dict[str, str]:
    """The files of `units/`, by name."""
    units: dict[str, Service | Socket | Rotation] = {
        "sdserve.service": PLAIN,
        "sdserve@.service": INSTANCE,
        "sdserve.socket": PLAIN_SOCKET,
        "sdserve@.socket": INSTANCE_SOCKET,
        "logrotate.d/sdserve": PLAIN_ROTATION,
    }
    return {name: unit.text() for name, unit in units.items()}
