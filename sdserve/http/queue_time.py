"""X-Request-Start: when the proxy in front got a request, in any of the forms that proxies write.

nginx: `t=${msec}`, seconds with a fraction; others write milliseconds, or microseconds, with or without `t=`. The
magnitude tells them apart: in seconds the present is 10 digits long, in milliseconds 13, in microseconds 16.
"""

LONGEST = 24  # characters
DAY = 86400.0  # seconds: who says so much earlier has another clock, or another meaning


def queue_seconds(text: str, now: float) -> float | None:
    """For how many seconds a request has waited until `now` (seconds since the epoch); None if that is nonsense.

    A proxy whose clock is ahead gives 0.0.
    """
    text = text.strip().removeprefix("t=")
    if len(text) > LONGEST or not (text.isascii() and text.replace(".", "", 1).isdigit()):
        return None
    then = float(text)
    while then > 1e11:
        then /= 1000
    waited = now - then
    return max(0.0, waited) if waited < DAY else None
