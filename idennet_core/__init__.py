import os

# OpenCV's own limit of a decoded picture, which it reads once when it is loaded: it stands behind the one in
# `datasets/pictures.py`, should a header fool that.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(64_000_000))
