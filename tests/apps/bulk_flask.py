"""A Flask application that takes and gives bodies of any size: /upload says what came, /download and /file give."""

import os
import zlib
from collections.abc import Iterator

from flask import Flask, Response, request, send_file

app = Flask(__name__)
PIECE = bytes(range(256)) * 256


@app.post("/upload")
def upload() -> str:
    size = check = 0
    while piece := request.stream.read(65536):
        size += len(piece)
        check = zlib.crc32(piece, check)
    return f"{size} {check}"


@app.get("/download/<int:pieces>")
def download(pieces: int) -> Response:
    def body() -> Iterator[bytes]:
        for _ in range(pieces):
            yield PIECE

    return Response(body(), mimetype="application/octet-stream")


@app.get("/file")
def file() -> Response:
    return send_file(os.environ["BULK_FILE"], mimetype="application/octet-stream")
