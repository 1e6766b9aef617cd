"""What a view of a service means for load balancers and probes: pure decisions.

Liveness is not readiness. A service without a serving worker is alive, and a restart may not help it; one that drains
still serves whatever comes, and wants no more.
"""

from sdserve.ops.view import View


def readiness(view: View) -> tuple[bool, str]:
    """Whether load balancers should send requests, and why not, in one line."""
    if view.state != "serving":
        return False, f"the service is {view.state or 'gone'}"
    if not view.serving:
        return False, f"no worker serves: {_states(view)}"
    return True, f"{view.serving} of {view.wanted} workers serve"


def _states(view: View) -> str:
    ours = [worker.state for worker in view.workers if worker.ours]
    return ", ".join(f"{ours.count(state)} {state}" for state in dict.fromkeys(ours)) or "there are none"


def agent_line(view: View) -> bytes:
    """The answer to an agent-check of HAProxy. It has the whole state: HAProxy keeps what an answer leaves out.

    The weight is the share of the wanted workers that serve, 1 % at least.
    """
    ready, _ = readiness(view)
    if not ready:
        return b"up drain\n"
    return b"up ready %d%%\n" % max(1, min(100, 100 * view.serving // max(1, view.wanted)))
