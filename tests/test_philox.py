"""Random words drawn in integer operations of any device, against NumPy's own."""

import numpy as np

from idennet_core import philox
from idennet_core.streams import generator


def test_the_raw_words_of_a_stream_are_numpys_to_the_bit():
    names = [("dropout", 0, "none", 5, layer) for layer in range(3)] + [("order", 2**40), ("x",)]
    for count in (1, 4, 1001):
        words = philox.raw_words(philox.keys(names), count).numpy().view(np.uint64)
        for name, found in zip(names, words, strict=True):
            assert np.array_equal(found, generator(*name).bit_generator.random_raw(count))
