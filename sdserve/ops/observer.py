"""The observer: the process that answers scrapers and load balancers, apart from master and workers.

The master forks it when somebody connects to a listener named `metrics` or `agent`. It leaves when nobody has come for
some minutes, when its master has gone, and when its master closes the lifeline. It reads the memory that all processes
of the service share, asks nobody, and changes nothing.
"""

from collections.abc import Callable, Iterable
from time import monotonic

from sdserve import SERVER_SOFTWARE
from sdserve.immutable import Immutable
from sdserve.log import Logger
from sdserve.ops import health
from sdserve.ops.backlog import waiting
from sdserve.ops.families import Scrape
from sdserve.ops.responder import Body, Responder
from sdserve.ops.view import View, Watched, lives, look
from sdserve.process.listeners import AGENT, Listener
from sdserve.process.proc import read_pss
from sdserve.rate_limit import RateLimit

IDLE = 300.0  # seconds
FRESH = 10.0  # seconds that the size of a worker is remembered: to tell it, the kernel counts all of its pages
PLAIN = "text/plain; charset=utf-8"
MISSING = "metrics need the package prometheus_client: pip install 'sdserve[metrics]'"


class Post(Immutable):
    """What an observer is forked with.

    served: the listeners that it answers on; their names say how
    application: the listeners whose accept queues it tells
    lifeline: the end of a pipe that only the master holds open
    """

    watched: Watched
    served: tuple[Listener, ...]
    application: tuple[Listener, ...]
    lifeline: int
    log: Logger
    idle: float = IDLE


def observe(post: Post, alive: Callable[[], bool]) -> None:
    """Answers until it is over. `alive` says whether the master is."""
    observer = Observer(post, alive)
    routes = {"/metrics": observer.metrics, "/livez": observer.livez, "/readyz": observer.readyz}
    responder = Responder(routes, observer.agent, SERVER_SOFTWARE, post.lifeline, post.idle, observer.failed)
    responder.on_end = observer.let_go
    for listener in post.served:
        responder.listen(listener.sock, http=listener.name != AGENT)
    responder.run()


class Observer:
    """The answers."""

    def __init__(self, post: Post, alive: Callable[[], bool]) -> None:
        self._post = post
        self._alive = alive
        self._text: Callable[[str], tuple[str, bytes]] | None = None
        self._told = False  # that the library is missing
        self._failures = RateLimit()
        self._pss: dict[int, tuple[float, int | None]] = {}  # by pid: when it was read

    def failed(self) -> None:
        """Logs the exception in progress, for which an answer could not be made: as often as whoever asks may want."""
        self._failures.say(monotonic(), self._post.log.exception, "Exception in the observer")

    def view(self) -> View:
        return look(self._post.watched, monotonic(), lives)

    def livez(self, accept: str) -> Body:
        """Whether the master lives."""
        if self._alive():
            return 200, "OK", PLAIN, b"ok\n"
        return 503, "Service Unavailable", PLAIN, b"the master is gone\n"

    def readyz(self, accept: str) -> Body:
        """Whether the service wants requests."""
        if not self._alive():
            return self.livez(accept)
        ready, why = health.readiness(self.view())
        if ready:
            return 200, "OK", PLAIN, f"ok: {why}\n".encode()
        return 503, "Service Unavailable", PLAIN, f"{why}\n".encode()

    def agent(self) -> bytes:
        return health.agent_line(self.view())

    def metrics(self, accept: str) -> Body:
        if self._text is None:
            try:
                from sdserve.ops.exposition import Exposition
            except ImportError as error:
                if not self._told:
                    self._told = True
                    self._post.log.error("%s (%s)", MISSING, error)
                return 501, "Not Implemented", PLAIN, f"{MISSING}\n".encode()
            self._text = Exposition(self.scrape).text
        kind, text = self._text(accept)
        return 200, "OK", kind, text

    def scrape(self) -> Scrape:
        view = self.view()
        pss = self.memory(worker.pid for worker in view.workers if worker.ours)
        open_ones = [each for each in self._post.application if each.fileno() >= 0]
        found = [(str(each), waiting(each.sock)) for each in open_ones]
        return Scrape(view, tuple((name, *queue) for name, queue in found if queue is not None), pss)

    def let_go(self) -> None:
        """Closes its copies of the application's listeners: if the service closes them, no client waits in a copy."""
        for listener in self._post.application:
            listener.close()

    def memory(self, pids: Iterable[int]) -> dict[int, int]:
        """The bytes of each process, at most `FRESH` seconds old. Those that the kernel does not tell are left out."""
        now = monotonic()
        known = self._pss
        self._pss = {
            pid: known[pid] if pid in known and now - known[pid][0] < FRESH else (now, read_pss(pid)) for pid in pids
        }
        return {pid: size for pid, (_, size) in self._pss.items() if size is not None}
