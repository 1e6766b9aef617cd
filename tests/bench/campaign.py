"""Deploys, kills and stand-stills in random order on a real systemd: `python -m tests.bench.campaign [--seed N]`.

Mixed clients, streams of events and WebSockets ask an ASGI application meanwhile, and a scraper reads /metrics. Each
deviation is told with what was done at that time: a counter that went back, a total that is not the clients' own, a
request lost that no kill explains, a process left over, a descriptor more, a traceback, a status that says nothing.
It takes some minutes, so it is not in the suite. --debian=trixie boots that one's; --only names some of the deeds.
"""

import argparse
import json
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import prometheus_client
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect as open_websocket

from tests.conftest import SUITES, other_debian
from tests.support.deeds import PATIENCE, Deeds
from tests.support.load import until_closed
from tests.support.machine import CHECKOUT, Machine
from tests.support.mix import KINDS, Diary, Mix
from tests.support.processes import Process
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

APPS = CHECKOUT / "tests" / "apps"
METRICS = ("127.0.0.1", 9391)
PIDFILE = "/run/sdserve/pid"
WORKERS = 3
CLIENTS = 24
STREAMS = 3  # of each kind
AFTERMATH = 1.0  # seconds in which the victims of a kill hear of it
LAST_TURN = 1.0  # seconds: the last turn of a worker's loop was no longer
DECK = {"reload": 20, "upgrade": 20, "restart": 10, "kill_master": 5}
CROSSED = 2  # how often each of the others is done
GROWING = re.compile(r"_total|_bucket|_sum|_count")
pace = threading.Event()  # never set


class Scraper:
    """Asks for /metrics all the time, and compares each series that may only grow with its last value."""

    def __init__(self, machine: Machine, diary: Diary) -> None:
        self.scrapes = 0
        self.seen: dict[str, float] = {}
        self.wrong: list[str] = []
        self._machine, self._diary = machine, diary
        self._over = threading.Event()
        self._one = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def scrape(self) -> dict[str, float]:
        with self._one, self._machine.connect(METRICS, timeout=30) as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            head, _, body = until_closed(sock).partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise EOFError(f"{head[:60]!r} {body[:100]!r}")
            lines = [line.rpartition(" ") for line in body.decode().splitlines() if line[:1] not in ("#", "")]
            found = {name: float(value) for name, _, value in lines}
            for name, value in found.items():
                if GROWING.search(name) and value < self.seen.get(name, 0) - 1e-6:
                    self._blame(f"{name} went back from {self.seen[name]} to {value}")
            gone = [name for name in self.seen if GROWING.search(name) and name not in found]
            if gone:
                self._blame(f"no longer told: {gone}")
            self.seen = found
            self.scrapes += 1
            return found

    def _blame(self, what: str) -> None:
        now = time.monotonic()
        self.wrong.append(f"{now - self._diary.deeds[0][0]:.3f} s: scrape: {what}, {self._diary.at(now)}")

    def _run(self) -> None:
        while not self._over.wait(0.25):
            try:
                self.scrape()
            except (OSError, EOFError) as e:
                self._blame(f"{e!r}")


class Stream:
    """A client that has a stream of events or a WebSocket open all the time, and tells how each of them ended."""

    def __init__(self, service: Service, kind: str) -> None:
        self.kind = kind
        self.ends: list[tuple[float, int, str]] = []
        """When (monotonic seconds), by which worker, how."""
        self._service = service
        self._over = threading.Event()
        self.open = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            pid, how = 0, ""
            try:
                sock = self._service.machine.connect(self._service.address, timeout=PATIENCE)
                sock.settimeout(PATIENCE)
                pid, how = self._events(sock) if self.kind == "events" else self._talk(sock)
            except InvalidStatus as e:
                how = str(e.response.status_code)
            except (OSError, EOFError, WebSocketException) as e:
                how = f"{type(e).__name__}: {e}"
            self.open.clear()
            if how:
                self.ends.append((time.monotonic(), pid, how))
                self._over.wait(0.05)

    def _events(self, sock: Any) -> tuple[int, str]:
        with sock:
            sock.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            data, pid = b"", 0
            while not self._over.is_set():
                try:
                    piece = sock.recv(4096)
                except ConnectionResetError:
                    return pid, "reset"
                data += piece
                if not pid and (found := re.match(rb"HTTP/1.1 (\d+) .*?x-pid: (\d+)\r\n", data, re.S | re.I)):
                    pid = int(found[2])
                    self.open.set()
                if data.endswith(b"\r\n0\r\n\r\n"):
                    return pid, "bye" if b"data: bye" in data else "end without bye"
                if not piece:
                    return pid, "cut" if pid and data.endswith(b"tick\n\n\r\n") else f"end of file after {data[:60]!r}"
                data = data[-200:] if pid else data
        return pid, ""

    def _talk(self, sock: Any) -> tuple[int, str]:
        with open_websocket("ws://a/", sock=sock, open_timeout=PATIENCE, close_timeout=5) as websocket:
            assert websocket.response is not None
            pid = int(websocket.response.headers.get("x-pid", 0))
            self.open.set()
            try:
                while not self._over.is_set():
                    websocket.send("hello")
                    websocket.recv(timeout=PATIENCE)
                    self._over.wait(0.2)
            except ConnectionClosed as e:
                return pid, str(e.rcvd.code if e.rcvd else "cut")
        return pid, ""


class Campaign(Deeds):
    """The deeds of a random history, and those that cross each other."""

    def __init__(self, machine: Machine, service: Service, mix: Mix, chance: random.Random) -> None:
        super().__init__(machine, service, mix, _NoDisk(), chance)  # type: ignore[arg-type]
        self.crossed: list[Callable[[], None]] = [
            *(self.kill_worker, self.stop_worker, self.kill_observer, self.stop_observer, self.kill_new_master),
            *(self.stop_new_master, self.stop_old_master, self.reload_amid_upgrade, self.upgrade_amid_reload),
            *(self.upgrade_amid_drain, self.reload_amid_drain, self.restart_amid_reload, self.restart_amid_upgrade),
            *(self.kill_master_amid_reload, self.kill_master_amid_upgrade, self.scale_amid_reload, self.stop_master),
            *(self.restart_amid_drain, self.upgrade_twice, self.kill_old_master, self.ask),
        ]

        self.orphans: set[int] = set()
        """Workers of a master that was killed: systemd kills those that have not left."""
        self._beheaded = 0  # a master that was killed, and no reload has waited for the next one

    def do(self, name: str) -> None:
        self._do(getattr(self, name))

    def _violent(self, name: str, victim: Process, number: signal.Signals) -> None:
        if name == "killed master":
            self._beheaded = victim.inner
            with suppress(OSError):
                self.orphans |= {child.inner for child in victim.children}
        super()._violent(name, victim, number)

    def reload(self) -> None:
        if self._beheaded:  # who is not there cannot reload
            eventually(lambda: self._service.main not in (0, self._beheaded), "another master", PATIENCE)
            self.settled()
            self._beheaded = 0
        super().reload()

    # -- kinds of processes

    def _titled(self, word: str) -> Process | None:
        for process in self._machine.processes(self._service.unit):
            with suppress(OSError):
                if word in process.title:
                    return process
        return None

    def _new(self) -> tuple[Process, Process]:
        """The old master, and a new one that starts."""
        old = self._master()
        known = {old.inner, *(child.inner for child in old.children)}
        self._fire("upgrade")
        with suppress(OSError):  # it may have ended by now
            known |= {child.inner for child in old.children}

        def starts() -> Process | None:
            for process in self._machine.processes(self._service.unit):
                with suppress(OSError):
                    if process.inner not in known and process.parent == self._machine.pid:
                        return process
            return None

        return old, eventually(starts, "a new master", PATIENCE)

    def _fire(self, what: str) -> None:
        """Asks the master for it, and does not wait."""
        if what == "upgrade":
            self._signal_master("USR2")
        else:
            self._machine.systemctl(what, "--no-block", self._service.unit)
        pace.wait(self._chance.choice((0, 0.05, 0.2, 0.5, 1.0)))

    def _moment(self) -> None:
        pace.wait(self._chance.uniform(0.1, 1.5))

    def _ctl(self, *args: str) -> str:
        return self._machine.run("/opt/sdserve/bin/sdservectl", "--timeout=30", *args, check=False).stdout

    # -- crossed deeds

    def kill_observer(self) -> None:
        if observer := self._titled("observer"):
            self._violent("killed observer", observer, signal.SIGKILL)

    def stop_observer(self) -> None:
        if observer := self._titled("observer"):
            self._stand(observer)

    def kill_new_master(self) -> None:
        _, new = self._new()
        self._killed = new.inner
        self._violent("killed master", new, signal.SIGKILL)

    def kill_old_master(self) -> None:
        """While it hands over, or has handed over."""
        old, _ = self._new()
        self._violent("killed master", old, signal.SIGKILL)

    def _stand(self, process: Process) -> None:
        with suppress(OSError):
            process.kill(signal.SIGSTOP)
            self._moment()
            process.kill(signal.SIGCONT)

    def stop_new_master(self) -> None:
        self._stand(self._new()[1])

    def stop_old_master(self) -> None:
        self._stand(self._new()[0])

    def stop_master(self) -> None:
        self._stand(self._master())

    def reload_amid_upgrade(self) -> None:
        self._fire("upgrade")
        self._fire("reload")

    def upgrade_amid_reload(self) -> None:
        self._fire("reload")
        self._fire("upgrade")

    def upgrade_twice(self) -> None:
        self._fire("upgrade")
        self._fire("upgrade")

    def restart_amid_reload(self) -> None:
        self._fire("reload")
        self._machine.systemctl("restart", self._service.unit)

    def restart_amid_upgrade(self) -> None:
        self._fire("upgrade")
        self._machine.systemctl("restart", self._service.unit)

    def kill_master_amid_reload(self) -> None:
        self._fire("reload")
        self.kill_master()

    def kill_master_amid_upgrade(self) -> None:
        self._fire("upgrade")
        with suppress(ProcessLookupError):
            self._violent("killed master", self._service.master, signal.SIGKILL)

    def scale_amid_reload(self) -> None:
        self._fire("reload")
        self._ctl("scale", str(self._chance.choice((1, 2, 5))))

    def _amid_drain(self, deed: Callable[[], None]) -> None:
        """A drain that has come to the connections, or not yet."""
        drain = threading.Thread(target=self._ctl, args=("drain", f"--for={self._chance.choice(('0', '0.5', '5'))}"))
        drain.start()
        self._moment()
        deed()
        self._ctl("undrain")
        drain.join()

    def upgrade_amid_drain(self) -> None:
        self._amid_drain(lambda: self._fire("upgrade"))

    def reload_amid_drain(self) -> None:
        self._amid_drain(lambda: self._fire("reload"))

    def restart_amid_drain(self) -> None:
        self._amid_drain(self.restart)

    def ask(self) -> None:
        """Everything that only looks."""
        assert json.loads(self._ctl("status", "--json"))
        assert "File " in (told := self._ctl("stacks")), told
        self._ctl("wait", "serving", "--timeout=20")


class _NoDisk:
    can_stand_still = False


# Ends of streams whose worker leaves; 503 is said to a WebSocket that is not accepted by then.
PROPER = {"events": ("bye", "cut"), "talk": ("1012", "503")}
VIOLENT = {"killed worker", "stopped worker", "killed master", "restarted orphans"}


class Trial:
    """One machine, one history, and what is wrong with it."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine, self.seed = machine, seed
        self.chance = random.Random(seed)
        self.wrong: list[str] = []
        self.grace = self.chance.choice(("0", "1", ""))
        settings = {"WORKERS": str(WORKERS), "TIMEOUT": "10", "GRACEFUL_TIMEOUT": "6", "KEEPALIVE": "5"}
        settings |= {"BOOT_TIMEOUT": "20", "PIDFILE": PIDFILE, "ACCESSLOG": "-", "ACCESS_LOG_FORMAT": "json"}
        settings |= {"STREAM_GRACE": self.grace} if self.grace else {}
        files: dict[str, str | Path] = {"plain.py": APPS / "plain_asgi.py", "mixed.py": APPS / "asgi_mixed.py"}
        drop_in = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=50ms\n"
        machine.write("/etc/systemd/journald.conf.d/test.conf", "[Journal]\nRateLimitIntervalSec=0\n")
        machine.systemctl("restart", "systemd-journald")
        self.service = deploy(machine, files, "mixed:application", settings, drop_in, start=False)
        library = Path(prometheus_client.__file__).parent
        shutil.copytree(library, machine.path("/srv/app/prometheus_client"))
        machine.install("sdserve-metrics.socket")
        machine.reload_units()
        machine.systemctl("start", self.service.socket, "sdserve-metrics.socket")
        self.service.wake()
        self.mix = Mix(lambda: machine.connect(self.service.address, timeout=PATIENCE), CLIENTS, KINDS)
        self.scraper = Scraper(machine, self.mix.diary)
        self.deeds = Campaign(machine, self.service, self.mix, self.chance)
        self.streams: list[Stream] = []
        self.done: list[str] = []
        self.differences: list[tuple[float, int, int]] = []
        """At each look: how many more were counted than seen, and `in_flight`."""

    def run(self, deck: list[str]) -> None:
        with self.mix.diary.entry("begin"):
            first = self.scraper.scrape()
            held = self.held()
        self.base = first
        self.scraper.start()
        self.streams = [Stream(self.service, kind) for kind in ("events", "talk") * STREAMS]
        with self.mix:
            self.mix.wait_answers(1, PATIENCE)
            for number, name in enumerate(deck, 1):
                self.done.append(name)
                try:
                    self.deeds.do(name)
                    if name in DECK or self.chance.random() < 0.7:
                        self.deeds.settled()
                        self.mix.wait_answers(1, PATIENCE)
                except AssertionError as e:
                    self.blame(f"{name}: {str(e)[:600]}")
                if number % 10 == 0 or number == len(deck):
                    self.calm()
        for stream in self.streams:
            stream.stop()
        self.scraper.stop()
        self.deeds.over()
        self.wrong += self.scraper.wrong
        self.losses()
        self.at_rest(held)

    def blame(self, what: str) -> None:
        began = self.mix.diary.deeds[0][0]
        self.wrong.append(f"{time.monotonic() - began:.3f} s: {what}")

    def held(self) -> dict[str, Any]:
        """After a reload and an upgrade without clients: what the service holds."""
        self.machine.systemctl("reload", self.service.unit)
        self.service.upgrade(PATIENCE)
        self.scraper.scrape()

        def look() -> dict[str, Any]:
            master = self.service.master
            titles = sorted(re.sub(r"\d+", "N", child.title) for child in master.children)
            members = self.machine.processes(self.service.unit)
            assert len(members) == 1 + len(titles) == 2 + WORKERS, [p.title for p in members]
            assert "observer" in str(titles), titles
            assert self.status().startswith(f"Running, {WORKERS} workers") or f"{WORKERS} worker" in self.status()
            assert self.machine.path(PIDFILE).read_text().strip() == str(master.inner)
            assert not self.machine.path(PIDFILE + ".2").exists()
            return {
                "titles": titles,
                "master": master.descriptors,
                "children": sorted(child.descriptors for child in master.children),
                "store": self.machine.get(self.service.unit, "NFileDescriptorStore"),
            }

        return eventually(look, "one master with its workers and its observer", PATIENCE)

    def status(self) -> str:
        return self.service.status

    def at_rest(self, before: dict[str, Any]) -> None:
        try:
            now = self.held()
            if now != before:
                self.blame(f"held {before} before, {now} at the end")
        except AssertionError as e:
            self.blame(f"at the end: {str(e)[:600]}")
        for entry in self.machine.journal():
            if "Traceback" in str(entry.get("MESSAGE")):
                self.wrong.append(f"journal: {entry.get('SYSLOG_IDENTIFIER')}: {entry['MESSAGE'][:1500]}")

    def calm(self) -> None:
        """Everybody is idle for a moment: what was answered is what is counted, but for what was in flight at kills."""
        self.mix.pause()
        try:
            self.deeds.settled()
            looks: list[float] = []
            before, most_before, least_before = self.differences[-1] if self.differences else (0.0, 0, 0)

            def counted() -> bool:
                seen = self.scraper.scrape()
                name = 'sdserve_requests_total{code="2xx"}'
                answers = len(self.mix.record.answers) + len(self.ended_streams())
                looks.append(seen[name] - self.base.get(name, 0) - answers)
                most, least = self.in_flight()
                assert len(set(looks[-3:])) == 1 and len(looks) > 2, f"still counting: {looks[-3:]}"
                may_be = range(least_before - least, most - most_before + 1)
                assert looks[-1] - before in may_be, f"counted {looks[-1] - before:+} more than were seen, not {may_be}"
                self.differences.append((looks[-1], most, least))
                return True

            eventually(counted, "calm", 30)
        except AssertionError as e:
            self.blame(f"{e}, {' '.join(self.done[-10:])}")
        except OSError as e:
            self.blame(f"calm: {e!r}")
        finally:
            self.mix.resume()

    def ended_streams(self) -> list[int]:
        """By which worker, of each stream of events that has begun and ended: they are counted then."""
        return [pid for stream in self.streams if stream.kind == "events" for _, pid, _ in stream.ends if pid]

    def in_flight(self) -> tuple[int, int]:
        """How many answers kills may have had counted and not seen, and seen and not counted.

        The former somebody has missed. The latter are what those who were killed answered in the last turns of their
        loops: no client asks twice in a turn.
        """
        killed = self.deeds.orphans | self.deeds.victims.keys()
        answers = [
            (answer, kind, answer.client)
            for kind, load in self.mix.loads.items()
            for answer in load.record.answers
            if answer.pid in killed
        ]
        last: dict[int, float] = {}
        for answer, _, _ in answers:
            last[answer.pid] = max(answer.at, last.get(answer.pid, 0.0))
        told = {(answer.pid, *client) for answer, *client in answers if answer.at > last[answer.pid] - LAST_TURN}
        return len(self.mix.lost), len(told) + sum(pid in killed for pid in self.ended_streams())

    def losses(self) -> None:
        """What was lost that no kill explains: of its own worker, or of whoever it was that did not say."""
        diary = self.mix.diary
        self.explained: Counter[str] = Counter()

        def book(kind: str, at: float, what: str, pid: int) -> None:
            deeds = {name for since, until, name in diary.deeds if since <= at <= until + AFTERMATH} & VIOLENT
            if (pid and pid in self.deeds.victims) or (not pid and deeds):
                self.explained[f"{self.deeds.victims.get(pid) or sorted(deeds)[0]}: {what[:40]}"] += 1
            else:
                self.wrong.append(f"{at - diary.deeds[0][0]:.3f} s: {kind}: {what} (pid {pid}), {diary.at(at)}")

        for kind, load in self.mix.loads.items():
            for failure in load.record.lost:
                book(kind, failure.at, f"{failure.name} {failure.detail}", failure.pid)
            for answer in load.record.answers:
                if answer.status != 200:
                    book(kind, answer.at, f"status {answer.status}", answer.pid)
        for stream in self.streams:
            for at, pid, how in stream.ends:
                if how not in PROPER[stream.kind]:
                    book(stream.kind, at, how, pid)

    def report(self) -> str:
        ends = Counter(f"{stream.kind} {how}" for stream in self.streams for _, _, how in stream.ends)
        errors: Counter[str] = Counter()
        for entry in self.machine.journal("-p", "err"):
            errors[re.sub(r"\d+", "N", str(entry.get("MESSAGE")))[:160]] += 1
        lines = [
            f"seed {self.seed}, systemd {self.machine.systemd}, stream_grace {self.grace or 'none'}: "
            f"{len(self.done)} deeds, {self.scraper.scrapes} scrapes, {self.mix.record}",
            f"  deeds: {' '.join(self.done)}",
            f"  streams: {dict(ends)}",
            f"  explained by kills: {dict(self.explained)}",
            "  counted more than were seen, at each calm (most, least that kills explain): "
            + " ".join(f"{each:+.0f} ({most:+}, {-least})" for each, most, least in self.differences),
            *(f"  journal, {count} times: {what}" for what, count in errors.most_common(25)),
            *(f"  WRONG {each}" for each in self.wrong),
        ]
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--debian", choices=SUITES)
    parser.add_argument("--only", nargs="*", default=[], metavar="DEED")
    parser.add_argument("--times", type=float, default=1.0, help="of the usual number of deeds (default: 1)")
    args = parser.parse_args()
    root = other_debian(args.debian) if args.debian else Path("/")
    machine = Machine.boot(root / "opt/sdserve" if args.debian else Path(sys.prefix), root)
    try:
        trial = Trial(machine, args.seed)
        deck = [name for name, times in DECK.items() for _ in range(max(1, round(times * args.times)))]
        deck += [each.__name__ for each in trial.deeds.crossed for _ in range(max(1, round(CROSSED * args.times)))]
        deck = [name for name in deck if not args.only or name in args.only]
        trial.chance.shuffle(deck)
        trial.run(deck)
        print(trial.report(), flush=True)
        return 1 if trial.wrong else 0
    finally:
        machine.shut_down()


if __name__ == "__main__":
    sys.exit(main())
