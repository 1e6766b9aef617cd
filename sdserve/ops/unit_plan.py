"""The files that `sdserve unit` writes for an application, as text: pure decisions from what project.py has found."""

import hashlib
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from sdserve.config import paths
from sdserve.ops import quoting, units
from sdserve.ops.places import Place
from sdserve.ops.project import STATE, Found, hidden, in_home, outermost

# The name of units and directories, and of the user `sdserve-NAME`, which has 31 characters at most.
NAME = re.compile(r"[a-z_][a-z0-9_-]{0,22}")
GENERIC = {
    "app",
    "application",
    "api",
    "asgi",
    "backend",
    "config",
    "core",
    "main",
    "server",
    "site",
    "src",
    "web",
    "wsgi",
}
FRAMEWORKS = {"django": "Django", "flask": "Flask", "fastapi": "FastAPI", "starlette": "Starlette"}
HEADER = """\
# Settings and secrets of this machine belong into /etc/sdserve/{name}.env (mode 0600), one NAME=value a line. What a
# reload shall be able to change, as `workers = 4`, belongs into sdserve.conf.py in the project's directory."""
SIGNED = re.compile(
    r"(?m)^# Written by `sdserve unit` \(([0-9a-f]{16})\): change what it was told, or use a drop-in\.\n"
)


@dataclass(frozen=True)
class Plan:
    """An application, and how it is to be served.

    directory  of the project, absolute            prefix   the virtual environment that serves it
    python     what lies behind prefix/bin/python  listen   values of ListenStream=
    user       an existing user to serve as, or "" for whom the files need
    writes     places outside of the service's own directories
    denied     those that its application names, and that are not for it to have
    config     a config file, or ""                with_    names of ready-made drop-ins
    catalogue  text of the journal's catalogue, or ""
    """

    app: str
    name: str
    directory: str
    prefix: str
    python: str
    found: Found
    listen: tuple[str, ...] = ("127.0.0.1:8000",)
    user: str = ""
    writes: tuple[Place, ...] = ()
    denied: tuple[Place, ...] = ()
    config: str = ""
    with_: tuple[str, ...] = ()
    catalogue: str = ""

    @property
    def place(self) -> str:
        """The name of the service's directories, and of the user made for it, as an instance of `sdserve@` has it."""
        return f"sdserve-{self.name}"

    @cached_property
    def owner(self) -> str:
        """The user to serve as; "" for a dynamic one."""
        owners = [
            owner for each in self.writes for owner in (each.owner, each.is_file and each.directory_owner) if owner
        ]
        return self.user or (owners[0] if owners else self.place if self.writes else "")

    @property
    def new_user(self) -> bool:
        """Whether that user is made for it, because what it writes to is root's so far."""
        return self.owner == self.place

    @property
    def writable(self) -> list[str]:
        """The directories to write to: SQLite makes files beside its database."""
        return outermost([each.directory for each in self.writes])

    def writes_above(self, path: str) -> str:
        """The directory that it writes to, or is given, and that `path` lies in; or ""."""
        places = outermost([*self.writable, *self.given_away])
        return next((each for each in places if f"{path}/".startswith(f"{each.rstrip('/')}/")), "")

    @property
    def given_away(self) -> list[str]:
        """What is root's so far and has to be the service's user's, unless --user names one."""
        paths = {each.path for each in self.writes if not each.owner}
        paths |= {each.directory for each in self.writes if each.is_file and not each.directory_owner}
        return sorted(paths) if not self.user else []

    @property
    def settings(self) -> dict[str, str]:
        """The environment that says what to serve."""
        wanted = {"SDSERVE_WSGI_APP": self.app, "SDSERVE_CHDIR": self.directory, "SDSERVE_CONFIG": self.config}
        wanted["DJANGO_SETTINGS_MODULE"] = self.found.settings
        return {name: value for name, value in wanted.items() if value}

    @property
    def read(self) -> list[str]:
        """The directories that it is read from: the project, its environment, and the interpreter of that."""
        interpreter = self.python.rpartition("/bin/")[0]
        return outermost([each for each in (self.directory, self.prefix, interpreter) if each])

    @property
    def bound(self) -> list[str]:
        """What the service reads and would not see: it is in a home directory, or in /tmp, which is private."""
        return [each for each in outermost(list(filter(hidden, self.read))) if each not in self.writable]

    def closed(self, may_search: Callable[[str], bool]) -> str:
        """The first directory that keeps the service's user from what is read, "" if there is none.

        What is hidden is shown at its place, whatever lies above it.
        """
        for each in self.read:
            if not hidden(each):
                each = paths.barrier(f"{each}/", may_search)
            elif may_search(each):
                continue
            if each:
                return each
        return ""

    @property
    def kind(self) -> str:
        """What it is, in a word or two."""
        names = (FRAMEWORKS.get(self.found.framework, ""), self.found.protocol.upper())
        return ", ".join(filter(None, names)) or "an application"

    # -- the files

    def files(self) -> dict[str, str]:
        """Names, below the directory for them, and signed texts. Raises ValueError for what cannot be written."""
        made = {f"{self.name}.socket": self.socket(), f"{self.name}.service": self.service()}
        for name in self.with_:
            made[f"{self.name}.service.d/{name}.conf"] = units.drop_in(name)
        made[f"{self.name}.logrotate"] = self.rotation()
        if self.new_user:
            about = f"{self.name}, served by sdserve"  # sysusers.d(5) takes no colon there
            made[f"{self.place}.sysusers.conf"] = f'u {self.place} - "{about}" /var/lib/{self.place}\n'
        if self.catalogue:
            made["sdserve.catalog"] = self.catalogue
        made["install.sh"] = self._installation(list(made))
        return {name: sign(text) for name, text in made.items()}

    def service(self) -> str:
        """The unit of the service."""
        return units.Service(
            header=HEADER.format(name=self.name),
            description=quoting.plain(f"{self._shown}, served by sdserve"),
            unit=self.name,
            directory=self.place,
            place=self.place,
            environment="\n".join(self._environment()),
            user="\n".join(self._user()),
            sdserve=quoting.command(f"{self.prefix}/bin/sdserve"),
            reload=quoting.command(f"{self.prefix}/bin/sdservectl", "reload"),
            homes="tmpfs" if any(map(in_home, (*self.bound, *self.writable))) else "yes",
        ).text()

    def socket(self) -> str:
        """The unit of the socket."""
        lines = [f"ListenStream={quoting.plain(each)}" for each in self.listen]
        if any(each.startswith("/") for each in self.listen):
            lines += ["# A proxy in front needs to be in the group:", "#   SocketGroup=www-data", "SocketMode=0660"]
        return units.Socket(
            header=f"# systemd listens, and starts {self.name}.service when the first client comes.",
            description=quoting.plain(f"Socket of {self._shown}"),
            listen="\n".join(lines),
        ).text()

    def rotation(self) -> str:
        """The rule of logrotate for its log files, if there will be any."""
        return units.Rotation(
            header="# Change it in /etc/logrotate.d: install.sh leaves a rule that is there as it is.",
            unit=self.name,
            place=self.place,
        ).text()

    @property
    def _shown(self) -> str:
        """The application's name in a description, without what cannot stand on a line."""
        return "".join(char if char.isprintable() and char != "\\" else "?" for char in self.app).strip()

    def _environment(self) -> Iterator[str]:
        for name, value in self.settings.items():
            yield f"Environment={quoting.word(f'{name}={value}')}"
        yield f"EnvironmentFile=-/etc/sdserve/{self.name}.env"

    def _user(self) -> Iterator[str]:
        if self.owner:
            yield "# The owner of what the application writes to. The rest came with DynamicUser=, and is kept."
            yield f"User={self.owner}"
            yield from ("ProtectSystem=strict", "PrivateTmp=yes", "NoNewPrivileges=yes", "RemoveIPC=yes")
        else:
            yield "# A user of its own that exists while the service runs. With it come a read-only file system,"
            yield "# a private /tmp, and no new privileges."
            yield "DynamicUser=yes"
            yield f"User={self.place}"
        yield from (f"BindReadOnlyPaths={quoting.bound(each)}" for each in self.bound)
        for each in self.writable:
            yield f"BindPaths={quoting.bound(each)}" if hidden(each) else f"ReadWritePaths={quoting.path(each)}"

    def _installation(self, names: list[str]) -> str:
        units_ = [name for name in names if "/" not in name and name.endswith((".socket", ".service"))]
        lines = [
            "#!/bin/sh",
            f"# Installs {' and '.join(units_)}, as root; again after a change.",
            "set -eu",
            'cd "$(dirname "$0")"',
            f"install -D -m 644 -t /etc/systemd/system {' '.join(units_)}",
        ]
        for name in self.with_:
            lines.append(
                f"install -D -m 644 -t /etc/systemd/system/{self.name}.service.d {self.name}.service.d/{name}.conf"
            )
        if self.new_user:
            lines.append(f"install -D -m 644 {self.place}.sysusers.conf /etc/sysusers.d/{self.place}.conf")
            lines.append(f"systemd-sysusers /etc/sysusers.d/{self.place}.conf")
        rule = f"/etc/logrotate.d/{self.place}"
        lines.append(f"[ -e {rule} ] || install -D -m 644 {self.name}.logrotate {rule}")
        lines += dict.fromkeys(self._making())
        lines += [f"[ ! -e {each} ] || chown -h {self.owner}: {each}" for each in map(shlex.quote, self.given_away)]
        if self.catalogue:
            lines.append("install -D -m 644 -t /usr/lib/systemd/catalog sdserve.catalog")
            lines.append("journalctl --update-catalog")
        return "\n".join([*lines, "systemctl daemon-reload"]) + "\n"

    def _making(self) -> Iterator[str]:
        """Makes the directories that it writes to and that are missing: systemd could not show them (status 226).

        Where somebody owns what is above, he does, and not root: he may have put a link there.
        """
        for each in self.writes:
            directory, above = each.directory, (each.directory_owner if each.is_file else each.owner)
            place = shlex.quote(directory)
            if above:
                yield f"[ -e {place} ] || runuser -u {above} -- mkdir -p {place}"
            else:
                yield f'[ -e {place} ] || install -d -m 755 -o {self.owner} -g "$(id -g {self.owner})" {place}'

    def transient(self) -> str:
        """The line of systemd-run(1) that serves it until it is stopped, without a file; a client starts it."""
        words = ["systemd-run", f"--unit={self.name}"]
        words += [f"--socket-property=ListenStream={each}" for each in self.listen]
        properties = ["Type=notify", "NotifyAccess=exec", "KillMode=mixed", "ExitType=cgroup"]
        properties += ["RestartKillSignal=SIGRTMIN", "FileDescriptorStoreMax=8"]
        properties += [f"RuntimeDirectory={self.place}", f"StateDirectory={self.place}"]
        dynamic = not self.owner or self.new_user
        properties += [f"User={self.place}", "DynamicUser=yes"] if dynamic else [f"User={self.owner}"]
        properties += [f"BindReadOnlyPaths={quoting.path(each, specifiers=False)}" for each in self.bound]
        properties += [f"ReadWritePaths={quoting.path(each, specifiers=False)}" for each in self.writable]
        words += [word for each in properties for word in ("-p", each)]
        words += [f"--setenv={name}={value}" for name, value in (self.settings | {"SDSERVE_FD_STORE": "1"}).items()]
        return shlex.join([*words, f"{self.prefix}/bin/sdserve"])

    # -- what to know besides

    def hints(self, transient: bool = False) -> Iterator[str]:
        """What the operator may have to do, a line each."""
        found = self.found
        if found.error:
            yield f"not imported, nor served until it can be ({found.error}): what stands here was read from its source"
            yield "what it writes to is not known: name that by --writable"
        if found.framework == "django" and not found.error:
            yield from self._hints_of_django()
        for each in self.denied:
            yield (
                f"it writes to {each.path}, which is not the project's, so the service may not: let it write below"
                " $STATE_DIRECTORY, or, if it shall, say --writable"
            )
        if transient and self.new_user:
            yield f"it may not write to {', '.join(self.writable)}, which is root's: name who may by --user"
            return
        if self.owner and not self.user:
            who = f"a new user, {self.owner}" if self.new_user else self.owner
            yield f"it serves as {who}, since it writes to {', '.join(self.writable)}"
        if self.given_away:
            yield f"install.sh gives {', '.join(self.given_away)} to {self.owner}"

    def _hints_of_django(self) -> Iterator[str]:
        found = self.found
        if found.debug:
            yield "DEBUG is on in its settings: turn it off before others can reach it"
        if not found.debug and not found.hosts:
            yield "ALLOWED_HOSTS is empty: every request will be answered with 400; name the hosts in the settings"
        if found.has_static and not found.static:
            yield "STATIC_ROOT is not set: collectstatic needs it, and the proxy serves static files from there"
        elif found.has_static:
            yield f"static files: run manage.py collectstatic; the proxy serves them from {found.static}"
        if any(each.startswith(STATE) for each in found.files):
            yield f"its database is in /var/lib/{self.place}"
            yield f"run manage.py migrate as the service's user: {self._migrate(state=True)}"
        elif found.files:
            yield "a database in $STATE_DIRECTORY would spare the service to write into the project's directory"
            command = self._migrate(state=False)
            yield f"run manage.py migrate as {self.owner}, who may not write to what root makes: {command}"

    def _migrate(self, state: bool) -> str:
        """The command that does it with the service's environment, and with the state directory that is its alone."""
        properties = [f"User={self.owner}"] if self.owner else [f"User={self.place}", "DynamicUser=yes"]
        properties += [f"StateDirectory={self.place}"] if state else []
        properties += [f"WorkingDirectory={self.directory}", f"EnvironmentFile=-/etc/sdserve/{self.name}.env"]
        given = [word for each in properties for word in ("-p", each)]
        given.append(f"--setenv=DJANGO_SETTINGS_MODULE={self.found.settings}")
        python = [f"{self.prefix}/bin/python", "manage.py", "migrate"]
        return shlex.join(["systemd-run", "--collect", "--wait", "--pipe", *given, *python])


def sign(text: str) -> str:
    """The text with a line that says who wrote it, and lets `is_ours` see whether it was changed since."""
    first, newline, rest = text.partition("\n") if text.startswith("#!") else ("", "", text)
    digest = hashlib.sha256((first + newline + rest).encode()).hexdigest()[:16]
    line = f"# Written by `sdserve unit` ({digest}): change what it was told, or use a drop-in.\n"
    return first + newline + line + rest


def is_ours(text: str) -> bool:
    """Whether `sign` made this, and nobody has changed it since."""
    found = SIGNED.search(text)
    return found is not None and sign(text[: found.start()] + text[found.end() :]) == text


def name_of(app: str, directory: str) -> str:
    """A name for the units: that of the project's package, or if that is a generic one, of its directory."""
    parts = app.partition(":")[0].split(".")
    for candidate in (parts[0], directory.rstrip("/").rpartition("/")[2]):
        name = re.sub(r"[^a-z0-9_-]+", "-", candidate.lower()).strip("-")[:23]
        if name not in GENERIC and NAME.fullmatch(name):
            return name
    return "application"
