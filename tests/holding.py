"""A process that is held where it stands: it goes on only to be killed or interrupted there, however slow who waits is.

The file is also run as it is by Python when it starts, as `sitecustomize`, in commands and in all that they start.
"""

import os
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def hold(place, mark):
    """Hold this process at the change of a folder that follows that by which a file of this name (a pattern) came.

    It touches the file `mark` then.
    """
    came = held = False

    def hook(event, arguments):
        nonlocal came, held
        if event not in ("os.rename", "os.remove"):
            return
        if came and not held:
            held = True
            Path(mark).touch()
            time.sleep(900)
        came = came or (event == "os.rename" and re.search(place, str(arguments[1])) is not None)

    sys.addaudithook(hook)


def environment(folder, place, mark):
    """What a command must have in its environment to be held so; the folder is for what Python runs as it starts."""
    folder.mkdir(exist_ok=True)
    text = Path(__file__).read_text(encoding="utf-8") + f"\n\nhold({place!r}, {str(mark)!r})\n"
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    before = filter(None, [os.environ.get("PYTHONPATH")])
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), *before])}
