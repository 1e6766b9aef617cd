"""The end of an address that is served no more: clients that have arrived are served, later ones are refused.

At a reload they go on to workers that serve on; at a stop the workers that leave take them. Closing a listening
socket resets the connections in its queue, and somebody may arrive between a last look and the close. So the socket is
first shut, in all processes that have it. For a Unix socket shutdown(2) does that, and leaves its queue alone. A TCP
socket's queue would be reset by it, so there a filter drops each SYN: nobody begins a connection that would be reset.
The client sends another SYN a second later (tcp(7), tcp_syn_retries), and is refused.
"""

import array
import errno
import socket
import struct
from contextlib import suppress

from sdserve.process.adoption import SPREAD, AdoptionQueue, HandedConnection
from sdserve.process.listeners import Listener

HANDSHAKE = 0.02  # seconds in which one that has begun comes to an end, unless its client is far away
SO_ATTACH_FILTER = 26  # socket(7); the module has no name for it
# Classic BPF (linux/filter.h): operation, jumps if true and if false, operand. The packet begins with the TCP header.
DROP_SYN = (
    (0x30, 0, 0, 13),  # BPF_LD | BPF_B | BPF_ABS: the flags
    (0x45, 0, 1, 0x02),  # BPF_JMP | BPF_JSET: is SYN among them?
    (0x06, 0, 0, 0),  # BPF_RET: drop
    (0x06, 0, 0, 0xFFFFFFFF),  # BPF_RET: keep all of it
)


def give_up(listener: Listener, queue: AdoptionQueue) -> OSError | None:
    """Ends a listener that we bound: for every process that has it, and with no way back.

    Returns why some connections were left behind, None if none were. The descriptor is the caller's to close.
    """
    trouble = None
    try:
        shut(listener)
        while waiting := _accepted(listener):
            try:
                went, _ = queue.offer(waiting)
            finally:
                for each in waiting:
                    each.sock.close()
            if len(went) < len(waiting):
                raise OSError(errno.ENOBUFS, "the adoption queue takes no more")
    except OSError as error:
        trouble = error
    with suppress(OSError):  # another process was quicker
        listener.sock.shutdown(socket.SHUT_RD)  # whoever has a copy keeps nobody waiting
    return trouble


def shut(listener: Listener) -> bool:
    """From now on nobody arrives, at any process that has it. Those in its queue can be accepted as before.

    False where the kernel cannot do that (gVisor): there, whoever arrives in the next microseconds is reset.
    """
    sock = listener.sock
    if sock.family == socket.AF_UNIX:
        sock.shutdown(socket.SHUT_RD)
        return True
    program = array.array("B", b"".join(struct.pack("HBBI", *each) for each in DROP_SYN))
    address, _ = program.buffer_info()
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(DROP_SYN), address))
    except OSError:
        return False
    return True


def _accepted(listener: Listener) -> list[HandedConnection]:
    """Connections from the queue, as many as one message holds; none when it is empty."""
    found: list[HandedConnection] = []
    while len(found) < SPREAD:
        try:
            sock, _ = listener.sock.accept()
        except BlockingIOError:
            break
        except ConnectionAbortedError:  # its client gave up
            continue
        except OSError as error:
            if found or error.errno == errno.EINVAL:  # those first; another process has given it up
                break
            raise
        found.append(HandedConnection(sock, listener.label, new=True))
    return found
