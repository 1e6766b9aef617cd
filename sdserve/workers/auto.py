"""The default worker class, `auto`: the application decides whether WSGI or ASGI is served.

What an application speaks is known when it has been loaded, in the worker as a rule. The worker object is older: the
master makes it before the fork, and hooks see it. So an AutoWorker becomes one of the class that serves, here and
nowhere else: in the child when the application is there, and as the master's copy when the child has said so. By that,
the master has in memory what later workers need, too, and its log says once what serves. WSGI's worker is there from
the start, as the first answer of most services waits for it; what ASGI takes, only a service of ASGI loads.
"""

from collections.abc import Callable
from typing import Any

from sdserve.gateway.protocol import demand_threads, spoken_by
from sdserve.process.forked import Border
from sdserve.workers.base import Worker
from sdserve.workers.http.worker import HTTPWorker
from sdserve.workers.words import USING
from sdserve.workers.wsgi.worker import WSGIWorker

NAMES = ("wsgi", "asgi")


def class_of(name: str) -> type[Worker]:
    """The class that one of `NAMES` means. Those classes have no __init__ of their own: here it would not run."""
    if name == "asgi":
        from sdserve.workers.asgi.worker import ASGIWorker

        return ASGIWorker
    return {"wsgi": WSGIWorker}[name]


class AutoWorker(HTTPWorker):
    """Becomes a worker of the class that serves its application."""

    undecided = True

    @classmethod
    def decide(cls, app: Callable[..., Any], uri: str) -> tuple[type[Worker], str]:
        demand_threads(uri)  # without epoll, what serves ASGI cannot even be imported
        spoken = spoken_by(app)
        return class_of(spoken.protocol), f"{spoken.protocol} ({uri} {spoken.why})"

    def init_process(self) -> None:
        with Border(self.log.error):
            application = self.app.wsgi()
        served_by, using = self.decide(application, self.app.app_uri)
        served_by.check_app(application, self.app.app_uri)
        self.tell(USING + using.encode(errors="replace"))
        self.become(using)
        self.init_process()  # that of the class which serves

    def become(self, using: str) -> None:
        self.__class__ = class_of(using.partition(" ")[0])  # type: ignore[assignment]
