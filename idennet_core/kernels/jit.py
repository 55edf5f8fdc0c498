"""What a dense block does, in loops that stay in the processor's cache; each call runs on one thread.

Maps are [C, N], channel-major: row c holds channel c of all N = batch x side x side pixels, picture after picture.
Nothing is concatenated (a layer writes its new rows below those it read), no normalised copy of the maps is ever
stored (the ReLU of a normalised row is recomputed where it is needed), and the statistics of a channel are computed
once for all the layers that normalise it. Sums run in the maps' type within a tile and in float64 over tiles.

A batch norm is y = scale * x + shift, with scale = weight / sqrt(variance + eps), shift = bias - mean * scale.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numpy.typing import NDArray

Array = NDArray[Any]
TILE = 576  # pixels worked on at a time: a few rows of them and their results fit the first-level cache

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def jit(kernel: _Kernel) -> _Kernel:
    """Compile a kernel at its first call, once a machine."""
    # `reassoc` and `contract` let sums be vectorised and fused; NaN and infinity keep their meaning
    compile_: Any = numba.njit(
        nogil=True, cache=True, error_model="numpy", boundscheck=False, fastmath={"reassoc", "contract", "nsz"}
    )
    return compile_(kernel)  # type: ignore[no-any-return]
