"""Django over ASGI: views of both kinds, a stream, an upload, a file; and a chat over WebSockets, by Channels."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
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
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
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


class Chat(AsyncJsonWebsocketConsumer):
    """What one says all in the room hear."""

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept(subprotocol="chat")

    async def receive_json(self, content: str) -> None:
        await self.channel_layer.group_send(self.room, {"type": "said", "what": content})

    async def said(self, event: dict[str, str]) -> None:
        await self.send_json(event["what"])

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)
        SEEN.append(f"left {self.room} with {code}")


class Guarded(WebsocketConsumer):
    """A consumer that runs in a thread, and lets nobody in who has no token."""

    def connect(self) -> None:
        if b"token" in self.scope["query_string"]:
            self.accept()
            self.send("welcome")
            self.close(3001)
        else:
            self.close()


sockets = URLRouter([path("chat/<str:room>", Chat.as_asgi()), path("guarded", Guarded.as_asgi())])
application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": sockets})
