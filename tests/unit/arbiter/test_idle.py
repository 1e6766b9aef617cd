"""Exit on idle: when a service counts as unused."""

import os
from contextlib import closing

from sdserve.arbiter.idle import IdleExit
from sdserve.arbiter.lifecycle import Master
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.service import Service
from sdserve.config import load
from sdserve.log import Logger
from tests.unit.arbiter.turning import Family


def test_what_a_worker_that_has_gone_did_counts() -> None:
    now = 100.0
    loop = Loop(clock=lambda: now)
    service = Service(load(["app:app", "--idle-exit", "10"], {}), loop, Logger(), os.getpid(), {})
    service.state = Master.RUNNING
    left: list[float] = []
    with closing(Family(booted=True, service=service)) as family:
        IdleExit(service, lambda: left.append(now))
        family.handle.cell.begin(109.0)
        family.handle.cell.end()
        family.kill()
        service.children.reap(family.handle)

        now = 110.0
        loop.turn()
        assert left == []
        now = 119.0
        loop.turn()
        assert left == [119.0]
