"""The config file of the simulated service: hooks, which do what the world has in store for them."""

from typing import Any


def on_starting(server: Any) -> None:
    server.host.hook("on_starting")


def when_ready(server: Any) -> None:
    server.host.hook("when_ready")


def nworkers_changed(server: Any, new_value: int, old_value: int | None) -> None:
    server.host.hook("nworkers_changed")


def pre_fork(server: Any, worker: Any) -> None:
    server.host.hook_before_fork(worker)


def child_exit(server: Any, worker: Any) -> None:
    server.host.hook("child_exit")


def on_reload(server: Any) -> None:
    server.host.hook("on_reload")


def on_exit(server: Any) -> None:
    server.host.hook("on_exit")
