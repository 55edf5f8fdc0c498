import itertools
import subprocess
import sys

import numpy as np
import pytest

from idennet_core.streams import generator, key


def test_the_same_names_give_the_same_numbers_also_in_another_process():
    here = generator("fold", 1).integers(2**62, size=4).tolist()
    assert here == generator("fold", 1).integers(2**62, size=4).tolist()
    code = "import idennet_core.streams as s; print(s.generator('fold', 1).integers(2**62, size=4).tolist())"
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert there.stdout.strip() == str(here)


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (("fold", 1), ("fold", "1")),
        (("fold", 1), ("fold", 1, 0)),
        (("fold", 1), (1, "fold")),
        (("fold", 1, 11), ("fold", 11, 1)),
        (("fold", 1), ("fold1",)),
        (("a", "b"), ("ab",)),
        (("a, b",), ("a", "b")),
        (("a', 'b",), ("a", "b")),
        (("fold", 1), ("fold", -1)),
        ((), ("",)),
    ],
)
def test_other_names_are_another_stream(names, others):
    assert key(*names) != key(*others)
    assert not np.array_equal(generator(*names).random(8), generator(*others).random(8))


def test_names_that_are_equal_name_one_stream_also_when_one_comes_from_an_array():
    subject = np.array(["P001"])[0]  # a str to Python and to mypy
    assert isinstance(subject, str)
    assert key("identity rank", subject) == key("identity rank", "P001")


def test_drawing_from_one_stream_moves_no_other():
    undisturbed = generator("order", 0).random(4)
    generator("weights", 0).random(1000)
    assert np.array_equal(generator("order", 0).random(4), undisturbed)


def test_streams_of_neighbouring_names_are_uncorrelated():
    draws = np.stack([generator("dropout", seed, step).standard_normal(4000) for seed in range(6) for step in range(6)])
    pairs = [np.corrcoef(draws[a], draws[b])[0, 1] for a, b in itertools.combinations(range(36), 2)]
    assert np.abs(pairs).max() < 5 / 4000**0.5  # 630 pairs: 5 sigma
    assert np.abs(draws.mean(1)).max() < 5 / 4000**0.5
