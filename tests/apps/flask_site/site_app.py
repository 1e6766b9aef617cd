"""A Flask application with a text of its own and one from a dependency, `greeting`, that tests install and upgrade."""

import os

import greeting
from flask import Flask, Response, request

app = Flask(__name__)
TEXT = "first"


@app.after_request
def name_the_worker(response: Response) -> Response:
    response.headers["X-Pid"] = str(os.getpid())
    return response


@app.get("/")
def index() -> str:
    return f"{TEXT} {greeting.TEXT}"


@app.post("/upload")
def upload() -> dict[str, int]:
    return {"bytes": len(request.get_data())}
