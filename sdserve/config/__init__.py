"""Configuration: every setting declared once as data, read from command line, environment and config file."""

from sdserve.config.configuration import Config
from sdserve.config.load import answer, load
from sdserve.config.schema import SETTINGS

__all__ = ["SETTINGS", "Config", "answer", "load"]
