"""Django's hello: one route, no database, and its answer is the one that apps.py has for it."""

from apps import TINY  # the servers are started in this directory
from django.conf import settings  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="bench",
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
)


def hello(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(TINY, content_type="text/plain")


urlpatterns = [path("any/<int:number>", hello)]
application = get_wsgi_application()
