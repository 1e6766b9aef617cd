"""Log files that root opens for workers that are somebody else, who open them again after a rotation.

A new file becomes theirs, as nginx and gunicorn have it, and by the descriptor of what was made here (O_EXCL): never a
file that was there, never by a path that may mean another file meanwhile. Whoever may write to a directory could put a
link there, or one on the way there, and be given a file of anybody's. So root follows no link in a directory of theirs,
and gives them nothing in one that they may have led it to.
"""

import errno
import os
import stat
from io import TextIOWrapper

from sdserve.process.output import Output, text

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC

Owner = tuple[int, int]  # uid and gid


def open_file(path: str, owner: Owner | None = None) -> TextIOWrapper:
    """A log file, opened to be appended to; a new one is `owner`'s, where this process is root. Raises OSError."""
    if owner is None or os.geteuid() != 0 or owner[0] == 0:
        fd = os.open(path, _FLAGS | os.O_CREAT, 0o666)
    else:
        fd = _open_for(path, *owner)
    try:
        return text(Output(fd, path))
    finally:
        os.close(fd)


def _open_for(path: str, uid: int, gid: int) -> int:
    where, name = os.path.split(os.path.abspath(path))
    groups = _groups(uid, gid)
    directory = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        theirs = _may_write(os.fstat(directory), uid, groups)
        try:
            fd = os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=directory)
        except FileExistsError:
            if not theirs:
                return os.open(name, _FLAGS | os.O_CREAT, 0o666, dir_fd=directory)
            return _open_there(name, directory)
        if theirs or not _may_lead(where, uid, groups):
            os.fchown(fd, uid, gid)
        return fd
    finally:
        os.close(directory)


def _open_there(name: str, directory: int) -> int:
    try:
        return os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.strerror = "root follows no symbolic link in a directory that others may write to"
        raise


def _groups(uid: int, gid: int) -> list[int]:
    """All groups that a worker may be in (initgroups)."""
    import pwd

    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # nobody has that number
        return [gid]


def _may_write(directory: os.stat_result, uid: int, groups: list[int]) -> bool:
    mode = directory.st_mode
    return directory.st_uid == uid or bool(mode & 0o002) or bool(mode & 0o020 and directory.st_gid in groups)


def _may_lead(path: str, uid: int, groups: list[int]) -> bool:
    """Whether they may change what `path` leads to, a directory: by a name on the way, or a link's own way."""
    found, above = os.lstat(path), os.path.dirname(path)
    if stat.S_ISLNK(found.st_mode):
        return _may_lead(above, uid, groups) or _may_lead(os.path.join(above, os.readlink(path)), uid, groups)
    sticky = found.st_mode & stat.S_ISVTX and found.st_uid != uid  # there they rename and remove what is theirs only
    if _may_write(found, uid, groups) and not sticky:
        return True
    return path != above and _may_lead(above, uid, groups)
