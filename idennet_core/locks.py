"""Locks of files, where a file system has them; where it has none, as some NFS, nobody is kept out.

A lock ends with its process, however that ends, and is not passed on to those that it forks. It saves work that would
be done twice; results do not depend on it.
"""

import errno
import fcntl
import os
from typing import IO, Any
from weakref import WeakSet

NONE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # what a file system without locks answers
_taken: WeakSet[IO[Any]] = WeakSet()


def take(file: IO[Any], shared: bool = False, wait: bool = False) -> bool:
    """Take the lock of an open file until it is closed; False where another process has it, unless this one waits."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NONE:
            raise
    _taken.add(file)
    return True


def _leave_to_parent() -> None:
    """Let go, in a forked process, of the files that hold a lock as long as any process has them open."""
    null = os.open(os.devnull, os.O_RDWR)
    for file in _taken:
        if not file.closed:
            os.dup2(null, file.fileno(), inheritable=False)
    os.close(null)


os.register_at_fork(after_in_child=_leave_to_parent)
