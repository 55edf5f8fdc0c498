"""NumPy's Philox4x64 on any device: the raw words of a named stream, equal to the bit, without leaving the device.

Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011). Words are unsigned 64 bits kept in int64.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from idennet_core import streams

ROUNDS = 10
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
LOW = 0xFFFFFFFF


def keys(names: Iterable[tuple[str | int, ...]]) -> Tensor:
    """The keys of the streams with these names, int64 [S, 2], low word first."""
    found = b"".join(streams.key(*name).to_bytes(16, "little") for name in names)
    return torch.from_numpy(np.frombuffer(found, "<i8").reshape(-1, 2).copy())


def raw_words(key: Tensor, count: int) -> Tensor:
    """The first `count` words of each stream, int64 [..., count], from keys [..., 2].

    As `streams.generator(*name).bit_generator.random_raw(count)`.
    """
    blocks = -(-count // 4)
    zero = torch.zeros(*key.shape[:-1], blocks, dtype=torch.int64, device=key.device)
    words = [zero + torch.arange(1, blocks + 1, device=key.device), zero, zero, zero]  # NumPy counts before it draws
    first, second = key[..., 0, None], key[..., 1, None]
    for _ in range(ROUNDS):
        high, low = _product(words[0], MULTIPLIERS[0])
        other_high, other_low = _product(words[2], MULTIPLIERS[1])
        words = [other_high ^ words[1] ^ first, other_low, high ^ words[3] ^ second, low]
        first, second = first + _signed(WEYL[0]), second + _signed(WEYL[1])
    return torch.stack(words, -1).flatten(-2)[..., :count]


def _product(words: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """The high and the low 64 bits of unsigned products; a shift of int64 keeps the sign, so it is masked away."""
    high, low = (words >> 32) & LOW, words & LOW
    upper, lower = constant >> 32, constant & LOW
    middle = high * lower + ((low * lower >> 32) & LOW)
    crossed = low * upper + (middle & LOW)
    return high * upper + ((middle >> 32) & LOW) + ((crossed >> 32) & LOW), words * _signed(constant)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
