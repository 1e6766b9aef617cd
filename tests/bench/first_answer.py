"""The first answer of a stopped unit on a real systemd, beside gunicorn and a bare script with a passed socket.

    python -m tests.bench.first_answer                          needs root, as tests/systemd does; some minutes
    python -m tests.bench.first_answer --rounds 40 --apps tiny --shipped

--rounds   how often each unit is stopped and asked; rounds are interleaved (default: 40)
--apps     of tiny,flask,django,starlette, separated by commas (default: all); the bare script answers beside `tiny`
           only, uvicorn where the application is ASGI
--shipped  all units with the sandbox of units/sdserve.service, which systemd takes time to make, and not without any
--venv     where sdserve, its peers and the frameworks are installed, as an operator installs them

A unit is stopped, its socket listens; the clock runs from connect(2) to the first byte of the answer. sdserve and
gunicorn run two workers, Type=notify; uvicorn is one process, as it is with a passed socket. Medians, and the ratios of
the medians, go to standard output. No test runs this.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.bench.install import environment
from tests.support.machine import CHECKOUT, UNITS, Machine
from tests.support.waiting import eventually

PLACE = "/opt/sdserve"  # of the environment, inside
BARE = """
import socket
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nConnection: close\\r\\n\\r\\nhello")
    client.close()
"""
TINY = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
"""
FLASK = """
from flask import Flask
application = Flask(__name__)
application.add_url_rule("/", view_func=lambda: "hello")
"""
DJANGO = """
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="bench")
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("", lambda request: HttpResponse("hello"))]
application = get_wsgi_application()
"""
STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def hello(request):
    return PlainTextResponse("hello")

application = Starlette(routes=[Route("/", hello)])
"""
APPS = {"tiny": TINY, "flask": FLASK, "django": DJANGO, "starlette": STARLETTE}
ASGI = ("starlette",)
SERVERS = {
    "bare": f"{PLACE}/bin/python /srv/bench/bare.py",
    "gunicorn": f"{PLACE}/bin/gunicorn -w 2 -k %(gunicorn)s %(app)s:application",
    "uvicorn": f"{PLACE}/bin/uvicorn --fd 3 %(app)s:application",
    "sdserve": f"{PLACE}/bin/sdserve -w 2 %(app)s:application",
}


def is_measured(server: str, app: str) -> bool:
    return {"bare": app == "tiny", "uvicorn": app in ASGI}.get(server, True)


def installed(place: Path) -> None:
    """Installs the checkout, as it is now, and what it is compared with."""
    environment(place)
    pip: list[str | Path] = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    peers = ("gunicorn", "uvicorn[standard]", "flask", "django", "starlette")
    subprocess.run([*pip, *peers, f"{CHECKOUT}[asgi]"], check=True)
    subprocess.run([*pip, "--no-deps", "--force-reinstall", str(CHECKOUT)], check=True)


def sandbox() -> str:
    """What the shipped unit says about its sandbox."""
    text = (UNITS / "sdserve.service").read_text()
    return text[text.index("DynamicUser=") : text.index("[Install]")]


def install_units(machine: Machine, apps: Sequence[str], shipped: bool) -> dict[str, int]:
    """The units of all pairs of server and application; their ports by name."""
    machine.write("/srv/bench/bare.py", BARE)
    for app in apps:
        machine.write(f"/srv/bench/{app}_app.py", APPS[app])
    ports: dict[str, int] = {}
    for app in apps:
        for server, command in SERVERS.items():
            if not is_measured(server, app):
                continue
            name = f"first-{server}-{app}"
            ports[name] = 9100 + len(ports)
            start = command % {"app": f"{app}_app", "gunicorn": "asgi" if app in ASGI else "sync"}
            kind = "notify" if server in ("gunicorn", "sdserve") else "simple"
            service = f"[Service]\nType={kind}\nNotifyAccess=all\nWorkingDirectory=/srv/bench\nExecStart={start}\n"
            service += "Environment=PYTHONDONTWRITEBYTECODE=1\nKillMode=mixed\n" + (sandbox() if shipped else "")
            machine.install(f"{name}.service", service)
            machine.install(f"{name}.socket", f"[Socket]\nListenStream=127.0.0.1:{ports[name]}\n")
    # The machine has the checkout's package, which may never have been compiled; pip compiles what it installs.
    package = machine.run(f"{PLACE}/bin/python", "-c", "import sdserve; print(*sdserve.__path__)").stdout.strip()
    machine.run(f"{PLACE}/bin/python", "-m", "compileall", "-q", "/srv/bench", package)
    machine.reload_units()
    return ports


def first_answer(machine: Machine, name: str, port: int) -> float:
    """Seconds from connect(2) to the first bytes of an answer, of a unit that was stopped."""
    machine.systemctl("stop", f"{name}.service", f"{name}.socket")
    machine.systemctl("start", f"{name}.socket")
    began = time.monotonic()
    with machine.connect(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        try:
            answer = client.recv(65536)
        except OSError as error:
            answer = str(error).encode()
        took = time.monotonic() - began
    if not answer.startswith(b"HTTP/1.1 200"):
        raise AssertionError(f"{name} answered {answer[:200]!r}\n{machine.story()}")
    eventually(lambda: machine.get(f"{name}.service", "ActiveState") == "active", f"{name} is up")
    return took


def report(times: dict[str, list[float]], apps: Sequence[str]) -> str:
    """A Markdown table: milliseconds, and how they compare with sdserve's."""
    lines = ["| unit | median ms | best ms | sdserve / this |", "|---|---:|---:|---:|"]
    for app in apps:
        own = median(times[f"first-sdserve-{app}"])
        for server in SERVERS:
            if found := times.get(f"first-{server}-{app}"):
                middle = median(found)
                lines.append(f"| {app}, {server} | {middle * 1e3:.1f} | {min(found) * 1e3:.1f} | {own / middle:.2f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.first_answer", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--apps", default=",".join(APPS))
    parser.add_argument("--shipped", action="store_true")
    parser.add_argument("--venv", type=Path, default=cache / "sdserve-bench" / "first-answer")
    args = parser.parse_args(argv)
    apps = args.apps.split(",")
    installed(args.venv)
    machine = Machine.boot(args.venv)
    times: dict[str, list[float]] = {}
    try:
        ports = install_units(machine, apps, args.shipped)
        names = list(ports)
        for number in range(args.rounds + 1):  # the first fills the page cache, and does not count
            for name in names[number % len(names) :] + names[: number % len(names)]:
                took = first_answer(machine, name, ports[name])
                if number:
                    times.setdefault(name, []).append(took)
    except KeyboardInterrupt:
        print("Interrupted: these are the rounds until then.\n")
    finally:
        machine.shut_down()
    print(f"{args.rounds} rounds, load average {os.getloadavg()[0]:.1f} at the end.\n")
    print(report(times, apps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
