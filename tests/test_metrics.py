import numpy as np
import pytest

from idennet_core import metrics


def test_accuracy_counts_frames_and_sequence_accuracy_the_argmax_of_the_mean_probability():
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.0, 1.0], [0.3, 0.7], [0.9, 0.1]])
    labels = np.array([1, 1, 1, 0, 0])
    sequences = np.array(["b", "b", "b", "a", "a"])
    # frames: only 3 and 5 are right; means: b (0.4, 0.6) right, a (0.6, 0.4) right
    assert metrics.accuracy(probabilities, labels) == pytest.approx(2 / 5)
    assert metrics.sequence_accuracy(probabilities, labels, sequences) == 1.0
    assert metrics.sequence_accuracy(probabilities, np.array([0, 0, 0, 0, 0]), sequences) == 0.5
