"""When the lead changes hands: the policy of leaders and followers, free of threads and clocks.

One thread leads: it polls, parses and calls the application itself. Two things can happen to the lead:

- a call lasts, and the watcher passes the lead to a follower (`overstays`);
- a call is expected to last, and the leader gives up the lead before it: then nobody waits for the watcher, and
  N threads serve N slow requests at a time.

Handing over costs a context switch, which is more than a fast request takes altogether, so it must pay. `Pace`
expects of a path what it did last time, and of an unknown path what requests have done as a rule. How long a call took
to which the lead was not left says nothing: it may have waited for what only the next request brought, or for other
threads. So now and then a path that is expected to be slow is tried with the lead: it is quick again, or it is not, and
then the next trial is twice as far away.
"""

LOOK_EVERY = 0.003  # seconds between two looks of the watcher at calls that are quick as a rule
PROMOTE_AFTER = 0.003  # seconds: a call that lasts longer loses the lead
IN_DEMAND = 0.002  # seconds after which it does when something else is ready to be served
PATHS = 512  # slow paths remembered
TRIAL, RAREST = 4, 64  # the first trial is after so many calls, and none is later than after so many
RISE, FALL, CEILING, THRESHOLD = 4, 1, 16, 8


def overstays(age: float, in_demand: bool) -> bool:
    """Whether a call that has had the lead for `age` seconds loses it; `in_demand`: something else could be served."""
    return age >= (IN_DEMAND if in_demand else PROMOTE_AFTER)


class Pace:
    """Which calls to expect to be slow. A call is known by its method and path."""

    __slots__ = ("_paths", "_rule", "_score", "calm")

    def __init__(self) -> None:
        self._paths: dict[
            str, tuple[int, int]
        ] = {}  # calls until the next trial, and how many there were after the last
        self._score = 0
        self._rule = TRIAL  # calls of unknown paths until the rule is tried
        self.calm = True  # nothing slow is remembered: no question needs to be asked

    def remembers(self, path: str) -> bool:
        """Whether anything is expected of a path, or of all: otherwise it need not be asked, nor told."""
        return self._score > 0 or path in self._paths

    def expect_slow(self, path: str) -> bool:
        """Whether the lead is to be given up before a call, which happens then; False too when it is tried."""
        known = self._paths.get(path)
        if known is not None:
            left, distance = known
            self._paths[path] = (left - 1, distance) if left else (distance, distance)
            return left > 0
        if self._score < THRESHOLD:
            return False
        self._rule = self._rule - 1 if self._rule else TRIAL
        return self._rule > 0

    def was_slow(self, path: str) -> None:
        """The lead had to be taken from it."""
        _, distance = self._paths.pop(path, (0, TRIAL // 2))
        distance = min(RAREST, 2 * distance)
        self._paths[path] = (distance, distance)
        if len(self._paths) > PATHS:
            self._paths.pop(next(iter(self._paths)), None)
        self._score = min(CEILING, self._score + RISE)
        self.calm = False

    def was_quick(self, path: str) -> None:
        """It was called with the lead, and kept it."""
        self._paths.pop(path, None)
        self._score = max(0, self._score - FALL)
        self.calm = not self._score and not self._paths
