"""sdserve: a systemd-native, socket-activated pre-fork server for WSGI and ASGI."""

__version__ = "0.1.0"

SERVER_SOFTWARE = f"sdserve/{__version__}"
