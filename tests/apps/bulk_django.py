"""A Django project in one file, that takes and gives bodies of any size, as bulk_flask.py does."""

import os
import zlib

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

PIECE = bytes(range(256)) * 256


def upload(request: HttpRequest) -> HttpResponse:
    size = check = 0
    while piece := request.read(65536):
        size += len(piece)
        check = zlib.crc32(piece, check)
    return HttpResponse(f"{size} {check}")


def download(request: HttpRequest, pieces: int) -> StreamingHttpResponse:
    return StreamingHttpResponse((PIECE for _ in range(pieces)), content_type="application/octet-stream")


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(os.environ["BULK_FILE"], "rb"), content_type="application/octet-stream")


urlpatterns = [path("upload", upload), path("download/<int:pieces>", download), path("file", file)]
settings.configure(SECRET_KEY="only for tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
app = get_wsgi_application()
