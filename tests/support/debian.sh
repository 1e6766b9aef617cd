#!/bin/sh
# Another Debian beside the host's own system, to test on: trixie, with systemd 257 and Python 3.13, or forky, the one that
# is being made, with whatever is newest.
#
#   debian.sh SUITE path              prints where its root directory is; makes it first when it is missing
#   debian.sh SUITE run COMMAND…      runs a command in it, as root, with the checkout at its own place and the host's
#                                     network
#
# /opt/sdserve is a virtual environment there with sdserve installed, on Debian's packages of what it requires, except
# for httptools, whose parser is another in Debian, and for what Debian does not have. `run` shows the package of the
# checkout in it. Made once for each version of this script and of the requirements, with the Debian mirror that this
# machine's apt uses, and kept in /var/cache/sdserve-tests (or $TESTS_CACHE), 300 MB; what nobody used for a week goes.
# Needs root, apt, mmdebstrap (which is installed if missing), and the checkout's .venv.
set -eu
checkout=$(cd "$(dirname "$0")/../.." && pwd)
cache=${TESTS_CACHE:-/var/cache/sdserve-tests}
suite=${1-}
stamp=$(sed '/^\[tool\.ruff\]/,$d' "$0" "$checkout/pyproject.toml" | cksum) # what checks and tests are told changes nothing
root=$cache/$suite-${stamp%% *}

# sdserve's requirements and those of its tests, the proxies of the scenarios, and what a machine needs to boot.
PACKAGES="systemd libnss-systemd libseccomp2 mount iproute2 python3-venv python3-setuptools
    python3-systemd python3-setproctitle
    python3-pytest python3-pytest-xdist python3-hypothesis python3-h11 python3-flask python3-django
    nginx-light haproxy strace"
WHEELS="httptools flask-sock simple-websocket wsproto"
ASGI="uvloop websockets fastapi starlette sse-starlette uvicorn httpx anyio python-multipart kosoku channels prometheus_client" # and their requirements

fail() {
    echo "no Debian $suite: $*" >&2
    exit 1
}

# The mirror of Debian itself among apt's sources; apt knows what is what once it has the lists.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null | sed -n 1p
}

make() {
    [ "$(id -u)" = 0 ] || fail "making it needs root"
    [ -x "$checkout/.venv/bin/python" ] || fail "making it needs .venv (contrib/demo or tests/run make it)"
    command -v apt-get >/dev/null || fail "making it needs apt"
    cd "$checkout"
    . contrib/setup.sh
    setup_packages mmdebstrap:mmdebstrap >&2 || fail "mmdebstrap cannot be installed"
    [ -n "$(mirror)" ] || apt-get update -qq >&2 || true
    [ -n "$(mirror)" ] || fail "apt has no source of Debian on this machine"
    say "making a Debian $suite in $root (once)"
    find "$cache" -mindepth 1 -maxdepth 1 -mtime +7 -exec rm -rf {} +
    rm -rf "$root.new"
    # The lists of a suite that is being made are good for a week, and some mirrors are older.
    mmdebstrap --quiet --mode=root --variant=essential --include="$(echo $PACKAGES | tr ' ' ,)" \
        --aptopt='Acquire::Check-Valid-Until "false"' \
        "$suite" "$root.new" "$(mirror)" >"$root.log" 2>&1 || fail "$(grep '^E: ' "$root.log" | head -1) ($root.log)"
    python=$(chroot "$root.new" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    .venv/bin/python -m pip download --quiet --no-deps --python-version "$python" --only-binary :all: $WHEELS \
        --dest "$root.new/tmp/wheels" >>"$root.log" 2>&1 || fail "these cannot be had: $WHEELS ($root.log)"
    .venv/bin/python -m pip download --quiet --python-version "$python" --only-binary :all: $ASGI \
        --dest "$root.new/tmp/wheels" >>"$root.log" 2>&1 || fail "these cannot be had: $ASGI ($root.log)"
    mkdir "$root.new/tmp/source"
    cp -r sdserve docs pyproject.toml README.md LICENSE "$root.new/tmp/source"
    chroot "$root.new" sh -euc '
        python3 -m venv --system-site-packages /opt/sdserve
        /opt/sdserve/bin/pip install --quiet --no-index --no-deps --no-build-isolation /tmp/wheels/* /tmp/source
        rm -r /tmp/wheels /tmp/source
    ' >>"$root.log" 2>&1 || fail "sdserve cannot be installed ($root.log)"
    mv "$root.new" "$root"
}

inside() {
    mount --bind "$root" "$root" # a root that is no mount cannot be made private, as unshare(1) does
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs -o mode=1777 tmp "$root/tmp"
    mount -t tmpfs -o mode=755 run "$root/run"
    mkdir -p "$root$checkout"
    mount --bind "$checkout" "$root$checkout"
    for site in "$root"/opt/sdserve/lib/python3*/site-packages; do
        mount --bind "$checkout/sdserve" "$site/sdserve"
    done
    exec chroot "$root" sh -euc 'cd "$1"; shift; exec "$@"' sh "$checkout" "$@"
}

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

case $suite in trixie | forky) shift ;; *) usage ;; esac
case ${1-} in
path)
    mkdir -p "$cache" || fail "$cache cannot be made"
    # Mounts that are made on the way end with this command, however it ends.
    [ -d "$root" ] || flock "$cache" unshare --mount --propagation private "$0" "$suite" _make || exit 1
    touch "$root"
    echo "$root"
    ;;
_make) [ -d "$root" ] || make ;;
run)
    shift
    "$0" "$suite" path >/dev/null
    exec unshare --mount --propagation private --pid --fork --kill-child "$0" "$suite" _inside "$@"
    ;;
_inside) shift; inside "$@" ;;
*) usage ;;
esac
