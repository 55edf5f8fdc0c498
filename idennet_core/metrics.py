"""What is counted on a test fold."""

import numpy as np
from numpy.typing import NDArray


def accuracy(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The share of frames whose most probable class is the label; `probabilities` [N, classes], `labels` [N]."""
    return float((probabilities.argmax(1) == labels).mean())


def sequence_accuracy(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], sequences: NDArray[np.str_]
) -> float:
    """The share of sequences whose most probable class, by the mean over its frames, is the label.

    `sequences` [N] names each frame's sequence; a sequence has one label.
    """
    _, first, member = np.unique(sequences, return_index=True, return_inverse=True)
    totals = np.zeros((len(first), probabilities.shape[1]))
    np.add.at(totals, member, probabilities)
    return float((totals.argmax(1) == labels[first]).mean())
