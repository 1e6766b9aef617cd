"""What a misspelt name may mean, found without the standard library's way to it: a master keeps that in memory."""

from difflib import SequenceMatcher, get_close_matches

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdserve.config.gunicorn import instead_of_class, likeness, nearest, worker_class_of
from sdserve.config.schema import SETTINGS

WORDS = st.one_of(st.text(alphabet="abcde_", max_size=12), st.sampled_from(sorted(SETTINGS)))


CLASSES = {
    "auto": ["auto"],
    "wsgi": [
        *("wsgi", "sync", "gthread", "gunicorn.workers.sync.SyncWorker", "gunicorn.workers.gthread.ThreadWorker"),
        *("gevent", "eventlet", "tornado", "gunicorn.workers.ggevent.GeventWorker"),
    ],
    "asgi": [
        *("asgi", "gunicorn.workers.gasgi.ASGIWorker"),
        *("uvicorn.workers.UvicornWorker", "uvicorn.workers.UvicornH11Worker"),
        *("uvicorn_worker.UvicornWorker", "uvicorn_worker.UvicornH11Worker"),
    ],
}


@pytest.mark.parametrize(("name", "ours"), [(name, ours) for ours, names in CLASSES.items() for name in names])
def test_what_a_worker_class_means_here(name: str, ours: str) -> None:
    assert worker_class_of(name) == ours
    assert worker_class_of(f"egg:gunicorn#{name}") == ours or name == "auto"


@pytest.mark.parametrize("name", ["mine", "mine.workers.UvicornWorker", "uvicorn.workers.Other", "asgi.Worker"])
def test_other_names_stay(name: str) -> None:
    assert worker_class_of(name) == name


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.workers.Other", "sanic.worker.GunicornWorker", "hypercorn.Any"])
def test_others_that_serve_asgi_have_a_counterpart(name: str) -> None:
    assert instead_of_class(name) == "use worker_class = 'asgi'"


@given(WORDS, WORDS)
@settings(max_examples=500)
def test_likeness_is_difflibs_ratio(one: str, other: str) -> None:
    expected = SequenceMatcher(None, one, other).ratio() if one or other else 0.0
    assert likeness(one, other) == expected


@given(WORDS, st.lists(WORDS, max_size=8))
@settings(max_examples=300)
def test_the_nearest_is_difflibs_closest_match(name: str, known: list[str]) -> None:
    found = get_close_matches(name, known, n=1) if name or "" not in known else []
    assert nearest(name, known, 0.6) == (found[0] if found else None)
