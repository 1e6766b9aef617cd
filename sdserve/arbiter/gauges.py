"""What the master itself tells statsd: how many workers there are, and how many connections wait to be accepted.

Both are told again and again: statsd may have been started later, and a datagram is lost without a word. Only where
statsd_host is set: a master without it does not wake up for this.
"""

from sdserve.arbiter.service import Service
from sdserve.ops.backlog import waiting

EVERY = 10.0  # seconds, as often as statsd flushes
BACKLOG_EVERY = 1.0  # seconds, as often as gunicorn looks


def tell_gauges(service: Service) -> None:
    """Tells both, and again in a while, as long as the configuration in force names a statsd."""
    service.gauges.cancel()
    generation, now = service.generation, service.loop.now()
    if generation is None or generation.statsd is None:
        return
    statsd, every = generation.statsd, EVERY
    if generation.cfg.enable_backlog_metric:
        every = BACKLOG_EVERY
        known = [found[0] for each in service.listeners if (found := waiting(each.sock)) is not None]
        if known:  # else nobody knows, which is not the same as nobody waiting
            statsd.tell("gunicorn.backlog", sum(known), "histogram")
    statsd.tell("gunicorn.workers", len(service.children), "gauge")
    service.gauges = service.loop.call_at(now + every, lambda: tell_gauges(service))
