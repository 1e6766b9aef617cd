"""The WSGI worker. Configurations may name its class by this package, and whoever needs a part of it loads no more."""


def __getattr__(name: str) -> object:
    if name != "WSGIWorker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sdserve.workers.wsgi.worker import WSGIWorker

    return WSGIWorker
