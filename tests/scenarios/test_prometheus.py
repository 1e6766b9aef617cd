"""A real Prometheus, set up as the page says, scrapes a service: nothing is wrong with metrics and alert rules, and
every query of the dashboard has an answer."""

import math
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdserve.ops.families import FAMILIES
from tests.support.load import Load
from tests.support.prometheus import (
    DASHBOARD,
    RULES,
    RULES_TEST,
    Prometheus,
    Unavailable,
    alerts,
    dashboard_queries,
    programs,
)
from tests.support.server import CHECKOUT, Server, connector
from tests.support.waiting import eventually
from tests.support.wire import exchange, get

pytestmark = pytest.mark.once

PAGE = (CHECKOUT / "docs" / "how-to" / "metrics.md").read_text()
OFTEN = "global: {scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}\n"


@pytest.fixture
def binaries() -> Path:
    try:
        return programs()
    except Unavailable as why:
        pytest.skip(str(why))


def configuration(target: str) -> str:
    """The page's example, for another target, and with the rules where they are."""
    found = re.search(r"```yaml\n(scrape_configs:.*?)```", PAGE, re.DOTALL)
    assert found is not None
    example = found[1]
    for place, other in (("127.0.0.1:9391", target), ("/etc/prometheus/sdserve.rules.yml", str(RULES))):
        assert place in example
        example = example.replace(place, other)
    return OFTEN + str(example)


def test_prometheus_is_content(start: Callable[..., Server], short_path: Path, binaries: Path) -> None:
    def promtool(*args: str | Path, stdin: str = "") -> str:
        command = [str(binaries / "promtool"), *map(str, args)]
        done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        return str(done.stdout)

    metrics, application = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    target, address = "127.0.0.1:{1}".format(*metrics.getsockname()), application.getsockname()
    sockets = [(application, "http"), (metrics, "metrics")]
    start("-w", "2", "--threads", "2", "plain:application", sockets=sockets).wait_ready()
    config = short_path / "prometheus.yml"
    config.write_text(configuration(target))

    with Prometheus(binaries, short_path, config) as prometheus, Load(connector(address), clients=2, think=0.01):
        assert f"{len(alerts())} rules found" in promtool("check", "config", config)
        promtool("check", "rules", RULES)
        promtool("test", "rules", RULES_TEST)
        promtool("check", "metrics", stdin=exchange(metrics.getsockname(), get("/metrics")).body.decode())

        def without_answer() -> list[tuple[str, str]]:
            exchange(address, get("/", f"X-Request-Start: t={time.time() - 0.001:.6f}"))
            return [each for each in queries if not any(map(math.isfinite, prometheus.values(each[1])))]

        queries = list(dashboard_queries(target, "2s"))
        eventually(lambda: not without_answer(), f"answers to {queries}")
        assert '"label_values(sdserve_ready, instance)"' in DASHBOARD.read_text()
        assert prometheus.ask("label/instance/values", **{"match[]": "sdserve_ready"}) == [target]

        [scraped] = prometheus.ask("targets")["activeTargets"]
        assert (scraped["health"], scraped["lastError"]) == ("up", "")
        known = {name: told[0]["type"] for name, told in prometheus.ask("metadata").items()}
        assert {family.name: family.kind for family in FAMILIES} == known

        def evaluated() -> bool:
            rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
            assert {rule["name"]: rule["health"] for rule in rules} == dict.fromkeys(alerts(), "ok"), rules
            return True

        eventually(evaluated, "alert rules that were evaluated")
        for name, expression in alerts().items():
            assert prometheus.values(f"absent(({expression}))") == [1.0], f"{name}, and nothing is wrong"
