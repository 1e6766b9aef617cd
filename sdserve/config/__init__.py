"""Configuration: every setting declared once as data, read from command line, environment and config file."""

from sdserve.config.load import Config, load
from sdserve.config.schema import SETTINGS

__all__ = ["SETTINGS", "Config", "load"]
