"""Which system calls fail, and with what.

Every call that a process makes once it serves is found by watching it, so a new one cannot be forgotten. Left out are
those that no program can go on without, or that cannot fail: of memory, locks, signals, time, and one's own end.
"""

from collections.abc import Iterable, Iterator, Sequence

from tests.faults.strace import Fault

ERRNOS = ("ENOSPC", "EMFILE", "ENFILE", "ENOMEM", "EPIPE", "ECONNRESET", "ETOOMANYREFS", "EINTR", "EAGAIN", "EIO")
LEFT_OUT = {
    # An allocation that fails ends the interpreter wherever it stands.
    *("mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "arch_prctl"),
    # The C library aborts when these fail, or they cannot.
    *("futex", "rseq", "set_robust_list", "restart_syscall", "sched_yield", "gettid", "getpid", "getppid", "getuid"),
    *(
        "geteuid",
        "getgid",
        "getegid",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sigaltstack",
        "set_tid_address",
    ),
    *(
        "clock_gettime",
        "clock_nanosleep",
        "gettimeofday",
        "getrandom",
        "uname",
        "sysinfo",
        "prlimit64",
        "sched_getaffinity",
    ),
    *("exit", "exit_group", "execve", "kill", "tgkill", "rt_tgsigqueueinfo"),
    # It frees the descriptor even when it reports an error (close(2)); a call that is not made would keep it open.
    "close",
}
FILE_CALLS = {
    *(
        "openat",
        "open",
        "creat",
        "write",
        "writev",
        "pwrite64",
        "pwritev",
        "read",
        "pread64",
        "readv",
        "lseek",
        "fstat",
    ),
    *(
        "newfstatat",
        "stat",
        "lstat",
        "statx",
        "ftruncate",
        "fallocate",
        "unlink",
        "unlinkat",
        "fsync",
        "sendfile",
        "dup",
    ),
    *("fcntl", "ioctl", "mkdir", "link", "linkat", "rename", "getcwd", "getdents64", "access", "faccessat2"),
    *("memfd_create", "copy_file_range", "splice", "umask", "chmod", "fchmod", "statfs", "fstatfs", "readlink"),
}


def points(calls: Iterable[str], errnos: Sequence[str] = ERRNOS, whens: Sequence[str] = ("1",)) -> Iterator[Fault]:
    """Every fault of every one of `calls`."""
    for call in sorted(set(calls) - LEFT_OUT):
        for errno in errnos:
            for when in whens:
                yield Fault(call, errno, when)
