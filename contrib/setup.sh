# Sets up what sdserve needs on this machine; sourced by contrib/demo and tests/run, from the top of the checkout.
# shellcheck shell=sh
#
#   setup_packages TOOL…   installs Debian packages for what is missing (as root; else says what to install)
#   setup_environment EXTRA STAMP
#                          makes .venv and installs the checkout into it, "pip install -e .EXTRA", unless that was done

say() { printf '\033[1m%s\033[0m\n' "==> $*" >&2; }

# A python that other users may execute is preferred: DynamicUser= cannot reach one below /root.
find_python() {
    for candidate in /usr/bin/python3 /usr/bin/python3.1[1-9] /usr/local/bin/python3 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

setup_packages() {
    missing=
    python=$(find_python) || { missing="$missing python3"; python=/usr/bin/python3; }
    "$python" -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
    header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null)
    [ -n "$header" ] && [ -f "$header" ] || missing="$missing python3-dev"
    [ -f /usr/include/systemd/sd-daemon.h ] || missing="$missing libsystemd-dev"
    [ -f /usr/include/stdio.h ] || missing="$missing libc6-dev"
    for tool in gcc:gcc pkg-config:pkg-config "$@"; do
        command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool#*:}"
    done
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086  # one word for each package
    set -- $missing
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "missing here, please install (names of Debian packages): $*"
        return 1
    fi
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

setup_environment() {
    python=$(find_python) || { say "no Python 3.11 or newer here"; return 1; }
    basis=$("$python" -V; pwd; cat pyproject.toml)
    # What tests need includes what the demo needs.
    for stamp in "$2" dev; do
        [ "$basis" = "$(cat ".venv/.installed-$stamp" 2>/dev/null)" ] && return 0
    done
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        say "making .venv with $python"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    say "installing sdserve$1 into .venv"
    .venv/bin/python -m pip install -q --disable-pip-version-check -e ".$1"
    printf '%s\n' "$basis" >".venv/.installed-$2"
}
