# Sets up what sdserve needs on this machine; sourced by contrib/demo and tests/run, from the top of the checkout.
# shellcheck shell=sh
#
#   setup_packages COMMAND:PACKAGE…
#                          installs the Debian packages of commands that are missing (as root; else says what to install)
#   setup_environment EXTRA STAMP
#                          makes .venv and installs the checkout into it, "pip install -e .EXTRA", unless that was done;
#                          installs what that takes first: Python, and a compiler for systemd-python

PATH=$PATH:/usr/sbin # Debian's nginx and haproxy are there, and users other than root do not look there

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
    for tool in "$@"; do
        command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool#*:}"
    done
    install_missing
}

setup_environment() {
    ! is_set_up "$2" || return 0
    missing=
    if python=$(find_python); then
        "$python" -c 'import venv, ensurepip' 2>/dev/null || missing=" python3-venv"
        header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
        [ -f "$header" ] || missing="$missing python3-dev"
    else
        missing=" python3 python3-venv python3-dev"
    fi
    [ -f /usr/include/systemd/sd-daemon.h ] || missing="$missing libsystemd-dev"
    [ -f /usr/include/stdio.h ] || missing="$missing libc6-dev"
    for tool in gcc pkg-config; do
        command -v $tool >/dev/null || missing="$missing $tool"
    done
    install_missing
    python=$(find_python) || { say "no Python 3.11 or newer here"; return 1; }

    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        say "making .venv with $python"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    say "installing sdserve$1 into .venv"
    .venv/bin/python -m pip install -q --disable-pip-version-check -e ".$1"
    basis >".venv/.installed-$2"
}

# What an installation is good for: this interpreter, this place, these requirements.
basis() {
    .venv/bin/python -V
    pwd
    cat pyproject.toml
}

# Whether .venv has what STAMP stands for; what tests need includes what the demo needs.
is_set_up() {
    now=$(basis 2>/dev/null) || return 1
    for stamp in "$1" dev; do
        [ "$now" != "$(cat ".venv/.installed-$stamp" 2>/dev/null)" ] || return 0
    done
    return 1
}

install_missing() {
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "missing here, please install (names of Debian packages):$missing"
        return 1
    fi
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    [ -n "${updated-}" ] || apt-get update -qq
    updated=1
    # shellcheck disable=SC2086  # one word for each package
    apt-get install -qq -y --no-install-recommends $missing >/dev/null
}
