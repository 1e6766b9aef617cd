"""The project's pages."""

import os

import greeting
from django.http import HttpRequest, HttpResponse
from django.urls import path

TEXT = "first"


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{TEXT} {greeting.TEXT}", headers={"X-Pid": str(os.getpid())})


urlpatterns = [path("", index)]
