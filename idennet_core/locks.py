"""Locks of files, where a file system has them; where it has none, as some NFS, nobody is kept out.

A lock ends with its process, however that ends. It saves work that would be done twice; results do not depend on it.
"""

import errno
import fcntl
from typing import IO, Any

NONE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # what a file system without locks answers


def take(file: IO[Any], shared: bool = False, wait: bool = False) -> bool:
    """Take the lock of an open file until it is closed; False where another process has it, unless this one waits."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NONE:
            raise
    return True
