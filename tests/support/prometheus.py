"""A real Prometheus, as Debian packages it: fetched once, unpacked beside what else the tests cache, never installed.

And what contrib/ has for it: the queries of the dashboard, and the alert rules.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.server import CHECKOUT, free_port
from tests.support.waiting import eventually

CACHE = Path(os.environ.get("TESTS_CACHE") or "/var/cache/sdserve-tests")
FETCH = "apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }"
RULES = CHECKOUT / "contrib" / "prometheus" / "sdserve.rules.yml"
RULES_TEST = RULES.with_name("sdserve.test.yml")
DASHBOARD = CHECKOUT / "contrib" / "grafana" / "sdserve.json"


class Unavailable(Exception):
    """Why there is no Prometheus here."""


def programs() -> Path:
    """The directory of `prometheus` and `promtool`: the machine's own, or the cache's, made by whoever comes first.

    Raises Unavailable.
    """
    if (own := shutil.which("prometheus")) and shutil.which("promtool"):
        return Path(own).parent
    place = CACHE / "prometheus"
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "prometheus.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                _fetch(place)
            os.utime(place)  # what nobody uses for a week is removed (debian.sh)
    except OSError as error:
        raise Unavailable(f"no Prometheus: {error}") from None
    return place / "usr" / "bin"


def _fetch(place: Path) -> None:
    new = place.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for command in (FETCH, "dpkg-deb -x prometheus_*.deb .", "rm prometheus_*.deb"):
        done = subprocess.run(["sh", "-c", command], cwd=new, capture_output=True, text=True)
        if done.returncode:
            wrong = [line for line in done.stderr.splitlines() if line.startswith("E: ")] or [done.stderr.strip()]
            raise Unavailable(f"no Prometheus: `{command.partition(' ||')[0]}` failed: {wrong[0]}")
    new.rename(place)


class Prometheus:
    """One that runs with the configuration `config`, inside a `with`. Its data lie in `directory`, an empty one."""

    def __init__(self, programs: Path, directory: Path, config: Path) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        self._log = directory / "log"
        options = [f"--config.file={config}", f"--web.listen-address={self._address}"]
        options += [f"--storage.tsdb.path={directory / 'data'}", "--log.level=warn"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [programs / "prometheus", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def __enter__(self) -> "Prometheus":
        try:
            eventually(lambda: self._process.poll() is not None or self._is_ready(), "a Prometheus that is ready")
            assert self._process.poll() is None, self._log.read_text()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=20) as answer:
                return bool(answer.status == 200)
        except OSError as error:  # it does not listen yet, or says 503
            raise AssertionError(str(error)) from None

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def values(self, query: str) -> list[float]:
        """Of each series that an instant query has."""
        return [float(series["value"][1]) for series in self.ask("query", query=query)["result"]]


def dashboard_queries(instance: str, interval: str) -> Iterator[tuple[str, str]]:
    """Each query of the dashboard with the title of its panel, and with its variables as Grafana fills them in."""
    chosen = re.escape(instance).replace("\\", "\\\\")
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield (
                panel["title"],
                target["expr"].replace("$instance", f"({chosen})").replace("$__rate_interval", interval),
            )


def alerts() -> dict[str, str]:
    """The query of each alert, by its name."""
    return dict(re.findall(r"- alert: (\w+)\n +expr: (.+)\n", RULES.read_text()))
