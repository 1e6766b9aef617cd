"""The application that is deployed: what it answers is apps.py's, what it imports weighs as much as a framework.

Its import takes about as long as that of a small Django project, in the processor time of each process that does it.
"""

import asyncio
import ctypes
import decimal
import email.mime.multipart
import http.server
import os
import sqlite3
import ssl
import unittest.mock
import urllib.request
import xml.dom.minidom
import xmlrpc.client
from collections.abc import Callable, Iterable
from typing import Any

from apps import WORK  # the servers are started in this directory

IMPORTED = (
    *(asyncio, ctypes, decimal, email.mime.multipart, http.server, sqlite3, ssl),
    *(unittest.mock, urllib.request, xml.dom.minidom, xmlrpc.client),
)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    body = str(os.getpid()).encode() if path == "/pid" else WORK[path](environ)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
