"""Descriptors that arrive through a Unix socket (SCM_RIGHTS, unix(7)), close-on-exec from the first moment.

`socket.recv_fds` drops its `flags` in the Python versions that we support first, so MSG_CMSG_CLOEXEC would not reach
the kernel, and every program that the application starts could inherit clients' connections.
"""

import array
import errno
import os
import socket

MOST = 253  # SCM_MAX_FD: no message carries more
# Why descriptors cannot be sent for now: the buffer is full, the kernel's memory is, or as many are on their way as the
# user may have open (unix(7), ETOOMANYREFS; root may have more). All of it passes when others take some out.
NOT_NOW = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)


def receive(sock: socket.socket, size: int, most: int = MOST) -> tuple[bytes, list[int], bool]:
    """One message of up to `size` bytes: its data, its descriptors, and whether some of those were lost.

    Raises what recvmsg(2) raises; the descriptors are the caller's to close.
    """
    fds = array.array("i")
    data, ancillary, flags, _ = sock.recvmsg(size, socket.CMSG_LEN(most * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, fds.tolist(), bool(flags & socket.MSG_CTRUNC)


def demand_room(fd: int, count: int) -> None:
    """Raises OSError where this process cannot have `count` descriptors more. `fd` is any open one.

    What a message carries and its receiver has no room for is closed by the kernel, without a word to anybody else.
    """
    held: list[int] = []
    try:
        while len(held) < count:
            held.append(os.dup(fd))
    finally:
        for each in held:
            os.close(each)
