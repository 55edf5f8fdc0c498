"""Random numbers by name: every draw of the project comes from a stream keyed by what it is for."""

import hashlib

import numpy as np


def key(*names: str | int) -> int:
    """A 128-bit key for a stream, from its names; `("fold", 1)` and `("fold", "1")` are different streams."""
    plain = tuple(str(name) if isinstance(name, str) else int(name) for name in names)  # NumPy's repr differs
    return int.from_bytes(hashlib.blake2b(repr(plain).encode(), digest_size=16).digest(), "little")


def generator(*names: str | int) -> np.random.Generator:
    """A fresh generator at the start of the stream with these names, e.g. `generator("order", seed, fold, epoch)`."""
    return np.random.Generator(np.random.Philox(key=key(*names)))
