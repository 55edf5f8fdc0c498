"""Small study files, and what loading one says."""

from functools import partial

import pytest

from orchestrator import study
from orchestrator.idennet import Idennet

load = partial(study.load, rules_of=lambda name: Idennet.rules)
# Kept one value a line, so that a mistake's line number says which value was meant.
GOOD = """\
name: small
question: Does it load?
dataset: oulu-casia
folds: [0, 1]
seeds: [0]
base:
  variant: if
  depth: 16
  alpha: 0.1
design:
  cells: [{variant: f}]
  grid:
    id_rate: [0.5, 1]
trunks:
  emotion: {epochs: 2}
profiles:
  quick:
    base: {epochs: 3}
    design: {grid: {id_rate: [1]}}
    folds: all
    trunks: {emotion: {lr: 0.2}}
reference: {source: somewhere, metric: accuracy, by: id_rate, values: {0: 80, 1: 90.5}}
report: {by: id_rate, baselines: [{variant: f}]}
"""
TWO_WAY = """\
design: {grid: {variant: [original, f], depth: [16, 22]}}
reference:
  source: somewhere
  metric: accuracy
  by: [variant, expression]
  values:
    original: {anger: 70, all: 80.5}
    f: {fear: 0}
report:
  by: [variant, depth]
  baselines: [{variant: original}]
  show: [expressions]
name: two
question: Which way?
dataset: ferplus
folds: none
"""


def written(folder, text=GOOD):
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(call):
    """The one line with which a call is refused."""
    with pytest.raises((ValueError, OSError)) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
