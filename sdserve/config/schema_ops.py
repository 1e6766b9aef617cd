"""Settings of what operators and their machines look at: metrics and health.

Part of the schema; see schema.py for how to add one.
"""

from __future__ import annotations

from sdserve.config import convert
from sdserve.config.address import binds_if_any
from sdserve.config.setting import Setting


class Observed:
    metrics_bind = Setting(
        binds_if_any,
        [],
        """Where scrapers find /metrics, and load balancers /livez and /readyz: addresses as in bind. A socket unit
        with FileDescriptorName=metrics does the same. Who reaches it can read what the service does: not the public.
        /metrics needs the package prometheus_client: install sdserve[metrics].""",
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
