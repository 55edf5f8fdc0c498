"""The middle frames of video files, whose number is known only when they are decoded to the end."""

import os
import stat
import threading
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from idennet_core.datasets.pictures import check_size
from idennet_core.datasets.prepared import Face
from idennet_core.datasets.scan import read_picture

MIDDLE = ("middle1", "middle2", "middle3")  # frames n // 2 - 1 to n // 2 + 1 of n
LEAST_SHARE = 0.9  # of the frames that a file's header promises; headers are often a few frames off
MAX_FILE, MAX_FRAMES = 4 * 2**30, 100_000  # bytes and frames of a video, an hour of it
# The decoder's own complaints would stand between our lines; it asks once, before the first video of a process.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# A file's suffix does not decide what it is taken for: a list of other files or addresses is no video here.
os.environ.setdefault(
    "OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file|format_whitelist;avi,mov,mpeg,mpegvideo,mpegts"
)
_locks = tuple(threading.Lock() for _ in range(64))


def file_of(source: str) -> tuple[str, str]:
    """The file that a source names, and which of its middle frames, '' for a picture file."""
    name, _, frame = source.rpartition("#")
    return (name, frame) if frame in MIDDLE else (source, "")


def read_frame(root: Path, picture: Face) -> NDArray[np.uint8]:
    """Decode a picture file, or a frame of a video (`S001-002.avi#middle1`), to BGR [height, width, 3].

    Raises OSError or ValueError for one that cannot be read.
    """
    name, frame = file_of(picture.source)
    if not frame:
        return read_picture(root, picture)
    path = (root / name).resolve()
    with _locks[hash(path) % len(_locks)]:  # the threads that want a clip's other frames wait for the first
        return _middle_frames(path, path.stat().st_mtime_ns)[MIDDLE.index(frame)]


@lru_cache(maxsize=8)
def _middle_frames(path: Path, changed: int) -> list[NDArray[np.uint8]]:
    """The frames of `MIDDLE`, from one pass that counts and a second to the middle: a whole clip may not fit in RAM."""
    clip = _open(path)
    promised = clip.get(cv2.CAP_PROP_FRAME_COUNT)
    num_frames = 0
    while clip.grab():
        num_frames += 1
        if num_frames > MAX_FRAMES:
            raise ValueError(f"a video may have {MAX_FRAMES:,} frames, but this has more")
    if num_frames == 0:
        raise ValueError("not a readable video: empty, damaged or of another format")
    if num_frames < LEAST_SHARE * promised:
        raise ValueError(f"damaged or cut off: {num_frames} of {promised:.0f} frames can be decoded")
    if num_frames < len(MIDDLE):
        raise ValueError(f"{num_frames} frames, the middle {len(MIDDLE)} are needed")
    clip = _open(path)
    for _ in range(num_frames // 2 - 1):
        clip.grab()
    read = [clip.read() for _ in MIDDLE]
    if not all(done for done, _ in read):
        raise ValueError("damaged: other frames are decoded at a second try")
    return [np.asarray(frame, np.uint8) for _, frame in read]


def _open(path: Path) -> cv2.VideoCapture:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("a video must be a file, but this is a pipe, a socket or a device")
    if status.st_size > MAX_FILE:
        raise ValueError(f"a video's file may have {MAX_FILE >> 30} GiB, but this has more")
    # one thread: the processes that decode others are on the other cores
    clip = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    check_size(int(clip.get(cv2.CAP_PROP_FRAME_WIDTH)), int(clip.get(cv2.CAP_PROP_FRAME_HEIGHT)), "a video's frame")
    return clip
