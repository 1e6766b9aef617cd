"""What contrib/setup.sh finds on a machine, for whoever tries sdserve there."""

import subprocess

from tests.support.server import CHECKOUT


def test_a_users_path_hides_no_proxy_that_is_installed() -> None:
    """Debian has them in /usr/sbin, where only root's PATH leads."""
    path = {"PATH": "/usr/bin:/bin"}
    script = ". contrib/setup.sh; command -v nginx; command -v haproxy"
    found = subprocess.run(["sh", "-c", script], cwd=CHECKOUT, env=path, stdout=subprocess.PIPE, text=True, check=False)
    assert found.stdout.split() == ["/usr/sbin/nginx", "/usr/sbin/haproxy"]
