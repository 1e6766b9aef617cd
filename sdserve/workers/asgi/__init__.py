"""The ASGI worker. Configurations may name its class by this package, and whoever needs a part of it loads no more."""


def __getattr__(name: str) -> object:
    if name != "ASGIWorker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sdserve.workers.asgi.worker import ASGIWorker

    return ASGIWorker
