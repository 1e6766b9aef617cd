"""A call that stops in its middle: it and its resumer never run at the same time, and each error finds its way."""

import threading

import pytest

from sdserve.errors import Leave
from sdserve.workers.wsgi.fiber import Fiber


def test_it_runs_while_it_is_waited_for_and_not_otherwise() -> None:
    said: list[str] = []

    def work() -> None:
        said.append("first")
        fiber.pause()
        said.append("second")

    fiber = Fiber()
    fiber.work = work
    assert said == []
    fiber.resume()
    assert (said, fiber.ended) == (["first"], False)
    fiber.resume()
    assert (said, fiber.ended) == (["first", "second"], True)


def test_it_is_always_the_same_thread_and_another_one_than_its_resumer() -> None:
    threads = []

    def work() -> None:
        for _ in range(3):
            threads.append(threading.get_ident())
            fiber.pause()

    fiber = Fiber()
    fiber.work = work
    fiber.resume()
    other = threading.Thread(target=fiber.resume)
    other.start()
    other.join()
    fiber.resume()
    fiber.resume()
    assert fiber.ended
    assert set(threads) == {fiber.thread} and fiber.thread != threading.get_ident()


def test_what_it_raises_is_its_resumers() -> None:
    fiber = Fiber()

    def divides_by_zero() -> None:
        raise ZeroDivisionError

    fiber.work = divides_by_zero
    with pytest.raises(ZeroDivisionError):
        fiber.resume()
    assert fiber.ended


def test_one_without_work_ends_at_once() -> None:
    fiber = Fiber()
    fiber.resume()
    assert fiber.ended


def test_work_that_is_abandoned_goes_no_further() -> None:
    begun, over, said = threading.Event(), threading.Event(), []

    def work() -> None:
        while True:
            begun.set()
            said.append("and again")

    def resume() -> None:
        with pytest.raises(Leave):
            fiber.resume()
        over.set()

    fiber = Fiber()
    fiber.work = work
    threading.Thread(target=resume, daemon=True).start()
    assert begun.wait(15)
    fiber.abandon()
    assert over.wait(15)
    assert fiber.ended
