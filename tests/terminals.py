"""What a terminal shows, read at its other end."""

import os
import select
import time
from contextlib import suppress


def read_until(reader, wanted, seconds=120):
    """Read until it has shown `wanted`."""
    shown, end = b"", time.monotonic() + seconds
    while wanted not in shown:
        assert select.select([reader], [], [], max(end - time.monotonic(), 0))[0], shown
        shown += os.read(reader, 4096)


def read_rest(reader):
    """All that it still shows until nobody writes to it any more; it is closed then."""
    shown = b""
    with suppress(OSError):  # how Linux says the end of a terminal
        while part := os.read(reader, 65536):
            shown += part
    os.close(reader)
    return shown
