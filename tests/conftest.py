import sys
from types import SimpleNamespace

import numpy as np
import pytest

from idennet_core.datasets import prepared
from idennet_core.datasets.oulu_casia import CLASSES
from idennet_core.datasets.prepared import Face
from idennet_core.streams import generator
from orchestrator.cli.app import main


@pytest.fixture
def idenctl(capsys, monkeypatch):
    """Run `idenctl …` in this process: its exit status and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["idenctl", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=ended.value.code or 0, stdout=printed.out, stderr=printed.err)

    return run


@pytest.fixture(scope="session")
def face_set(tmp_path_factory):
    """156 pictures of noise, prepared: 20 subjects x 6 expressions, 1 or 2 frames.

    Folds 0, 1 and 2 test 24 pictures, the others 12.
    """
    rows = [
        Face(
            f"P{subject:02d}",
            label,
            f"P{subject:02d}/{label}",
            f"{frame:03d}",
            "",
            f"{subject}/{label}/{frame}",
        )
        for subject in range(20)
        for label in CLASSES
        for frame in range(2 if subject % 10 < 3 else 1)
    ]
    pixels = generator("noise faces").integers(0, 256, (len(rows), 80, 80), dtype=np.uint8)
    directory = tmp_path_factory.mktemp("prepared") / "noise"
    prepared.save(directory, "noise", CLASSES, True, pixels, rows, [], {})
    return prepared.load(directory)
