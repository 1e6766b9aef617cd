"""FastAPI's hello: one route with a parameter, and its answer is the one that apps.py has for it."""

from apps import TINY  # the servers are started in this directory
from fastapi import FastAPI, Response

application = FastAPI()


@application.get("/any/{number}")
async def hello(number: int) -> Response:
    return Response(TINY, media_type="text/plain")
