"""How a simulated service begins, and the configurations that are deployed in the course of its life."""

from dataclasses import dataclass
from functools import lru_cache

from sdserve.config import Config, load

EXCLUSIVE = -1


@dataclass(frozen=True)
class Plan:
    """A world at its start. `systemd`: it is the service manager; `manual`: upgrades wait for the operator.

    surge: 0 means a reload of all at once, EXCLUSIVE the setting 0
    """

    workers: int = 2
    surge: int = 0
    gpus: int = 1
    max_age: int = 0
    systemd: bool = True
    manual: bool = False
    watchdog: int = 0  # WatchdogSec=
    idle: int = 0  # idle_exit


@lru_cache(maxsize=4096)
def configuration(plan: Plan, workers: int, surge: int, gpus: int, pidfile: str) -> Config:
    """A real configuration."""
    return load(
        [
            *("app:app", "--pid", pidfile, "--bind", "unix:/socket", "--workers", str(workers), "--boot-timeout", "20"),
            *("--config", "python:tests.simulation.hooks", "--idle-exit", str(plan.idle)),
            *("--timeout", "10", "--max-age", str(plan.max_age), "--upgrade", "manual" if plan.manual else "auto"),
            *("--reload-strategy", "rolling" if surge > 0 else "all", "--surge", str(max(0, surge) if surge else 1)),
            *("--gpus", ",".join(map(str, range(gpus if gpus > 1 else 0))), "--control-socket", "/control"),
        ],
        {},
    )
