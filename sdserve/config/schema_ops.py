"""Settings of what operators and their machines look at: metrics and health.

Part of the schema; see schema.py for how to add one.
"""

from __future__ import annotations

from sdserve.config import convert
from sdserve.config.address import binds_if_any, statsd_address
from sdserve.config.setting import Setting, switch


class Observed:
    metrics_bind = Setting(
        binds_if_any,
        [],
        """Where scrapers find /metrics, and load balancers /livez and /readyz: addresses as in bind. A socket unit
        with FileDescriptorName=metrics does the same. Who reaches it can read what the service does: not the public.
        /metrics needs the package prometheus_client: pip install 'sdserve[metrics]'.""",
        metavar="ADDRESS",
        repeatable=True,
        split=convert.split_commas,
        default_doc="none",
    )
    agent_bind = Setting(
        binds_if_any,
        [],
        """Where HAProxy's agent-check hears `up ready N%` or `up drain`: addresses as in bind. A socket unit with
        FileDescriptorName=agent does the same.""",
        metavar="ADDRESS",
        repeatable=True,
        split=convert.split_commas,
        default_doc="none",
    )
    statsd_host = Setting[tuple[str, int] | str | None](
        statsd_address,
        None,
        """Where statsd listens: HOST:PORT, [v6]:PORT, or unix://PATH for a Unix datagram socket. It is told what
        gunicorn tells it. The default port is 8125. A host name is looked up at each start and reload.""",
        metavar="ADDRESS",
        default_doc="none",
    )
    statsd_prefix = Setting(
        convert.metric_prefix,
        "",
        "What the names of statsd's metrics begin with; a dot follows it.",
        metavar="PREFIX",
    )
    dogstatsd_tags = Setting(
        convert.metric_tags,
        "",
        "Tags of all of statsd's metrics, as DogStatsD reads them: NAME:VALUE or NAME, separated by commas.",
        metavar="TAGS",
    )
    enable_backlog_metric = switch(
        "Tell statsd each second how many connections wait to be accepted, where the kernel tells it."
    )
