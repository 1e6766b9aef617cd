"""A Django site with a form, in one file: GET shows the token of the CSRF check, POST passes the check or not."""

from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import path

settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["project.example"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
)


def form(request: HttpRequest) -> HttpResponse:
    """The token; after a POST, how the site sees itself."""
    return HttpResponse(get_token(request) if request.method == "GET" else request.build_absolute_uri())


urlpatterns: list[Any] = [path("", form)]
application = get_wsgi_application()
