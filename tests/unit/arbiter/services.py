"""A service for tests of what shares its state."""

from sdserve.arbiter.loop import Loop
from sdserve.arbiter.service import Service
from sdserve.config import load
from sdserve.log import Logger


def service(loop: Loop | None = None) -> Service:
    return Service(load(["app"], {}), loop or Loop(), Logger("-", None, "info"), 100, {})
