"""Configuration: every setting declared once as data, read from command line, environment and config file."""

from sdserve.config.load import Config, answer, load
from sdserve.config.schema import SETTINGS

__all__ = ["SETTINGS", "Config", "answer", "load"]
