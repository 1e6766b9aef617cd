#!/bin/bash
# Boots a systemd as PID 1 of throw-away namespaces and keeps it alive for as long as stdin stays open.
#
#   machine.sh STATE CGROUP ROOT VENV PACKAGE
#
# STATE    a directory; STATE/notify is a datagram socket on which PID 1 says READY=1, STATE/log takes what goes wrong
# CGROUP   name of the cgroup to make below the root of the cgroup2 hierarchy; all the machine's processes live there
# ROOT     the root file system whose systemd that is, / for the host's own; writes to it stay inside
# VENV     a virtual environment, seen as /opt/sdserve in the machine; writes to it stay inside
# PACKAGE  the directory of the sdserve package, copied into that environment
#
# Prints the host's number of PID 1, then nothing more. End of file on stdin (the owner closed it, or was killed) ends the
# machine: PID 1 is killed, the kernel takes every process and mount with it, and the cgroup is removed.
#
# Needs root, a cgroup2 mount, overlayfs, unshare (util-linux) and ip (iproute2). The root file system is an overlay
# on ROOT: nothing that happens inside is seen outside.
set -u
STATE=$1 ROOT=$3 VENV=$4 PACKAGE=$5
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then HIERARCHY=/sys/fs/cgroup; else HIERARCHY=/sys/fs/cgroup/unified; fi
CGROUP=$HIERARCHY/$2
export STATE ROOT VENV PACKAGE
exec 3>&1 >"$STATE/log" 2>&1

inside() {
    set -e
    # Numbers in the host's /proc, which is still mounted here: the owner needs our pid as it sees it.
    read -r self _ </proc/self/stat
    top=$STATE/mnt root=$STATE/mnt/root
    mkdir -p "$top"
    mount -t tmpfs -o mode=755,size=512m machine "$top"
    mkdir -p "$top"/{upper,work,venv-upper,venv-work} "$root"
    mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=$top/upper,workdir=$top/work" "$root"
    ip link set lo up

    # /proc: what a container must not write is bound read-only, yet nothing is hidden (systemd's ProtectProc= remounts it).
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    for entry in sys sysrq-trigger irq bus; do
        [ -e "$root/proc/$entry" ] || continue
        mount --bind "$root/proc/$entry" "$root/proc/$entry"
        mount -o remount,bind,ro "$root/proc/$entry"
    done
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
    if ! mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup" 2>/dev/null; then
        mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
        mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
    fi

    # /dev: the harmless nodes only.
    mount -t tmpfs -o mode=755,nosuid dev "$root/dev"
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t tmpfs -o mode=1777,nosuid,nodev shm "$root/dev/shm"
    for node in null zero full random urandom tty; do
        : >"$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s fd/0 "$root/dev/stdin"; ln -s fd/1 "$root/dev/stdout"; ln -s fd/2 "$root/dev/stderr"

    for place in run:755 tmp:1777 var/log:755 var/tmp:1777 srv:755; do
        mkdir -p "$root/${place%:*}"
        mount -t tmpfs -o "mode=${place#*:},nosuid,nodev" machine "$root/${place%:*}"
    done
    rm -rf "$root/etc/sdserve" && mkdir "$root/etc/sdserve"
    mkdir "$root/run/host" && mount --bind "$STATE" "$root/run/host"

    # The environment under test: unprivileged users may read it, wherever the checkout lies.
    mkdir -p "$root/opt/sdserve"
    mount -t overlay overlay -o "lowerdir=$VENV,upperdir=$top/venv-upper,workdir=$top/venv-work" "$root/opt/sdserve"
    chmod 755 "$root/opt/sdserve"
    for site in "$root"/opt/sdserve/lib/python3*/site-packages; do
        rm -rf "$site/sdserve"
        cp -a "$PACKAGE" "$site/sdserve"
        chmod -R a+rX "$site/sdserve"
    done
    for script in sdserve:cli sdservectl:ctl; do
        printf '#!/opt/sdserve/bin/python\nimport sys\n\nfrom sdserve.%s import main\n\nsys.exit(main())\n' "${script#*:}" \
            >"$root/opt/sdserve/bin/${script%:*}"
        chmod 755 "$root/opt/sdserve/bin/${script%:*}"
    done

    # The checkout is at its place inside as well, even where one of the mounts above would hide it, or ROOT has none.
    checkout=${PACKAGE%/*}
    if ! [ -e "$root$checkout/tests" ]; then
        mkdir -p "$root$checkout" "$top/checkout-upper" "$top/checkout-work"
        mount -t overlay overlay -o "lowerdir=$checkout,upperdir=$top/checkout-upper,workdir=$top/checkout-work" "$root$checkout"
    fi
    if [ "$ROOT" != / ]; then # its own .venv would be one of the host's Python
        mount --bind "$root/opt/sdserve" "$root$checkout/.venv"
        { chroot "$root" /opt/sdserve/bin/python -V; echo "$checkout"; cat "$checkout/pyproject.toml"; } >"$root/opt/sdserve/.installed-dev"
    fi

    # PID 1 finds these units and no others: default dependencies can pull nothing of the host's in.
    units=$root/run/machine-units
    mkdir -p "$units" "$root/run/systemd/system" "$root/run/systemd/system.conf.d" "$root/run/systemd/journald.conf.d"
    for unit in systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket exit.target \
            systemd-exit.service shutdown.target umount.target final.target; do
        cp "$root/usr/lib/systemd/system/$unit" "$units/"
    done
    mkdir "$units/systemd-journald.service.d"
    printf '[Service]\nWatchdogSec=0\nStandardError=null\n' >"$units/systemd-journald.service.d/machine.conf"
    target() { printf '[Unit]\nDescription=%s\nDefaultDependencies=no\nConflicts=shutdown.target\n%b' "$1" "${2-}" >"$units/$1.target"; }
    for name in sockets paths timers slices local-fs remote-fs network network-online nss-user-lookup multi-user time-set; do
        printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$name" >"$units/$name.target"
    done
    journal="systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service"
    target sysinit "Wants=$journal\nAfter=$journal\n"
    target basic "Requires=sysinit.target\nAfter=sysinit.target sockets.target paths.target timers.target slices.target\n"
    target machine "Requires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n"
    printf '[Manager]\nDefaultTimeoutStopSec=10s\n' >"$root/run/systemd/system.conf.d/machine.conf"
    printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nForwardToSyslog=no\nForwardToKMsg=no\nForwardToConsole=no\nForwardToWall=no\nAudit=no\n' \
        >"$root/run/systemd/journald.conf.d/machine.conf"

    cd "$root"
    mkdir -p .old
    pivot_root . .old
    cd /
    umount -l /.old
    rmdir /.old 2>/dev/null || true
    mount --make-rshared /      # PID 1 leaves this to its starter when it finds itself in a container; LoadCredential= needs it
    echo "$self" >&3
    exec 3>&-
    exec env -i container=sdserve-tests PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        NOTIFY_SOCKET=/run/host/notify SYSTEMD_UNIT_PATH=/run/systemd/system:/run/machine-units \
        SYSTEMD_GENERATOR_PATH=/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/none SYSTEMD_FSTAB=/dev/null \
        /lib/systemd/systemd --system --unit=machine.target --log-target=journal --log-level=info --show-status=0
}
export -f inside

mkdir "$CGROUP" || exit 1
# A kernel that keeps controllers in v2 gives them to the machine; elsewhere MemoryMax= and TasksMax= do nothing.
for controller in memory pids cpu; do
    if grep -qw "$controller" "$HIERARCHY/cgroup.controllers"; then
        echo "+$controller" >"$HIERARCHY/cgroup.subtree_control"
    fi
done 2>/dev/null

bash -c 'echo $$ >"$1/cgroup.procs" && exec unshare --pid --fork --kill-child=KILL --mount --uts --ipc --net --cgroup --propagation private bash -c inside' \
    machine "$CGROUP" </dev/null &
holder=$!
exec 3>&-
cat >/dev/null
# unshare returns once PID 1 is reaped, and PID 1 is reaped only after all of its namespace is gone.
read -r init <"/proc/$holder/task/$holder/children" || init=$holder
kill -KILL "${init%% *}"
wait "$holder" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do
    find "$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -d "$CGROUP" ] || break
    sleep 0.05
done
rm -rf "$STATE"
