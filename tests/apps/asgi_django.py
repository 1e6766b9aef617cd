"""Django over ASGI: views of both kinds, a stream, an upload, a file."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    USE_TZ=True,
)
SEEN: list[str] = []


async def hello(request: HttpRequest, name: str = "") -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse(f"hello{name}", content_type="text/plain")


def sync(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"path": request.path, "scheme": request.scheme, "query": request.GET.dict()})


async def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse([request.POST["name"], file.name, hashlib.sha256(file.read()).hexdigest()], safe=False)


async def stream(request: HttpRequest) -> HttpResponse:
    async def numbers() -> AsyncIterator[bytes]:
        try:
            for number in range(1000):
                yield b"%d\n" % number
            while "more" in request.GET:
                yield b"x" * 1000
                await asyncio.sleep(0.001)
        finally:
            SEEN.append("stream is over")

    return StreamingHttpResponse(numbers(), content_type="text/plain")


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(__file__, "rb"))


def seen(request: HttpRequest) -> HttpResponse:
    return JsonResponse(SEEN, safe=False)


def fails(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("in a view")


urlpatterns = [
    path("", hello),
    path("hello/<str:name>", hello),
    *(path(each.__name__, each) for each in (sync, upload, stream, file, seen, fails)),
]
application = get_asgi_application()
