"""Flask's hello: one route, and its answer is the one that apps.py has for it."""

from apps import TINY  # the servers are started in this directory
from flask import Flask

application = Flask(__name__)


@application.route("/any/<int:number>")
def hello(number: int) -> bytes:
    return bytes(TINY)
