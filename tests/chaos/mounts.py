"""Disks that are small or turn read-only: mounts in a namespace of their own, which ends with this process."""

import ctypes
import os
import subprocess
from contextlib import contextmanager

import pytest

NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_why_not = "not asked for yet"


def private():
    """From now on what this thread and its children mount is theirs alone, where that is allowed."""
    global _why_not
    c = ctypes.CDLL(None, use_errno=True)
    if c.unshare(NEW_MOUNTS) != 0:
        _why_not = os.strerror(ctypes.get_errno())
        return
    done = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, text=True)
    _why_not = done.stderr.strip()


@contextmanager
def small_disk(folder, size):
    """A file system of so many bytes at a folder."""
    _needed()
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "disk", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def enlarge(folder, size):
    """Make room on a small disk."""
    _mount("-o", f"remount,size={size}", folder)


@contextmanager
def read_only(folder):
    """A folder that nobody can write to, root neither; opened files neither."""
    _needed()
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,bind,ro", folder)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _needed():
    if _why_not:
        pytest.skip(f"needs mounts of its own: {_why_not}")


def _mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)
