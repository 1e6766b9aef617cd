"""The master process: supervises workers, talks to systemd, and is the only part that forks or execs."""

from sdserve.arbiter.arbiter import Arbiter

__all__ = ["Arbiter"]
