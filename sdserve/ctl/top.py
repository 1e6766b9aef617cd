"""sdservectl top: the whole terminal, by curses. What stands there is composed in ops/top.py.

A thread follows the master, so that keys and a new size of the terminal are met at once, whatever the master does.
"""

import argparse
import curses
import queue
import threading
from collections.abc import Iterator
from typing import Any

from sdserve.ctl import client
from sdserve.ctl.client import Answer
from sdserve.ctl.parser import parameters
from sdserve.ops import top
from sdserve.ops.commands import named
from sdserve.process.proc import read_pss
from sdserve.status import Figures, plain

LOOK = 100  # milliseconds between two looks whether the master has said something
FRESH = 5.0  # seconds that the memory of workers is remembered: the kernel counts all of their pages for it
QUIT = (ord("q"), ord("Q"))
REDRAW = 12  # Ctrl-L: something else has written to the terminal


class Screen:
    """What is shown: the last two looks, and the memory of workers."""

    def __init__(self, screen: "curses.window") -> None:
        self._screen = screen
        self._title = "sdservectl: asks ..."
        self._now: Figures | None = None
        self._rates: top.Rates | None = None
        self._pss: dict[int, int | None] = {}
        self._pss_at = float("-inf")

    def take(self, answer: Answer) -> None:
        """Another look."""
        now, before = Figures.read(answer["figures"]), self._now
        self._title, self._now = answer["text"], now
        self._rates = top.rates(before, now) if before is not None else None
        if now.at - self._pss_at >= FRESH or {each.pid for each in now.workers} != self._pss.keys():
            self._pss, self._pss_at = {each.pid: read_pss(each.pid) for each in now.workers}, now.at

    def draw(self) -> None:
        size = self._screen.getmaxyx()
        now = self._now
        shown = [plain(self._title)] if now is None else top.lines(self._title, now, self._rates, self._pss, size)
        self._screen.erase()
        for number, line in enumerate(shown[: size[0]]):
            # The last column stays free: a character in the last corner moves the cursor out of the window.
            self._screen.addnstr(number, 0, line, max(0, size[1] - 1))
        self._screen.refresh()


def follow(options: argparse.Namespace) -> Answer | None:
    """Shows it until a key says otherwise, or the master ends it; returns what it said then. Raises OSError."""
    heard: queue.SimpleQueue[Answer | OSError] = queue.SimpleQueue()
    asked = parameters(named("top"), options)
    answers = client.follow(options.socket, "top", options.timeout, more=True, **asked)
    threading.Thread(target=_hear, args=(answers, heard), daemon=True).start()
    return curses.wrapper(_show, heard)


def _hear(answers: Iterator[Answer], heard: "queue.SimpleQueue[Any]") -> None:
    try:
        for answer in answers:
            heard.put(answer)
    except OSError as error:
        heard.put(error)


def _show(window: "curses.window", heard: "queue.SimpleQueue[Any]") -> Answer | None:
    try:
        curses.curs_set(0)
    except curses.error:  # a terminal that cannot hide its cursor
        window.leaveok(True)
    window.timeout(LOOK)
    screen = Screen(window)
    screen.draw()
    while True:
        key = window.getch()
        if key in QUIT:
            return None
        if key == REDRAW:
            window.clearok(True)
        news = key in (curses.KEY_RESIZE, REDRAW)
        while not heard.empty():
            answer = heard.get()
            if isinstance(answer, OSError):
                raise answer
            if not answer.get("continues"):
                return dict(answer)
            screen.take(answer)
            news = True
        if news:
            screen.draw()
