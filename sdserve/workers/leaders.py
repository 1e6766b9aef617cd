"""Who polls and who calls: the policy of leaders and followers, free of threads and clocks.

One thread leads: it polls, parses and calls the application itself. Two things can happen to the lead:

- a call lasts, and the watcher passes the lead to a follower (`PROMOTE_AFTER`);
- a call is expected to last, and the leader gives up the lead before it: then nobody waits for the watcher, and
  N threads serve N slow requests at a time.

Handing over costs a context switch, which is more than a fast request takes altogether, so it must pay. `Pace`
expects of a path what it did last time, and of an unknown path what requests have done as a rule.
"""

PROMOTE_AFTER = 0.003  # seconds between two looks of the watcher; a call seen twice is slow
SLOW = 0.002  # seconds: a call that was handed over and took less was not worth it
PATHS = 512  # slow paths remembered
RISE, FALL, CEILING, THRESHOLD = 4, 1, 16, 8


class Pace:
    """Which calls to expect to be slow."""

    __slots__ = ("_paths", "_score", "calm")

    def __init__(self) -> None:
        self._paths: dict[str, None] = {}
        self._score = 0
        self.calm = True  # nothing slow is remembered: no question needs to be asked

    def expect_slow(self, path: str) -> bool:
        return path in self._paths or self._score >= THRESHOLD

    def was_slow(self, path: str) -> None:
        self._paths.pop(path, None)
        self._paths[path] = None
        if len(self._paths) > PATHS:
            self._paths.pop(next(iter(self._paths)), None)
        self._score = min(CEILING, self._score + RISE)
        self.calm = False

    def was_quick(self, path: str) -> None:
        self._paths.pop(path, None)
        if self._score:
            self._score -= FALL
        self.calm = not self._score and not self._paths
