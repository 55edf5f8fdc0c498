import functools
import io
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from postgres import PROGRAMS, Postgres
from searching import mirrored, written

from idennet_core.datasets import prepared
from idennet_core.datasets.oulu_casia import CLASSES
from idennet_core.datasets.prepared import Face
from idennet_core.streams import generator
from orchestrator.cli.app import main
from orchestrator.store import Store

PATIENCE = 120_000  # milliseconds after which a browser hangs
# what whoever runs the tests has set for a terminal and a store of their own
for name in (
    *("COLUMNS", "LINES", "TERM", "LANG", "LC_ALL", "IDENCTL_STORE"),
    *("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
):
    os.environ.pop(name, None)
os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it when it is imported, by whichever test is first


def changed(text, old, new):
    """The text with `new` in the place of `old`, which it holds once."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the text"
    return text.replace(old, new)


def without_results(trained_store, folder, name, study):
    """A store with the data and the trunks of the trained one and no results, and a study file `NAME.yaml` in it."""
    for part in ("data", "trunks", "store.json"):
        source = trained_store / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    (folder / f"{name}.yaml").write_text(study)
    return Store(folder)


def rows(store):
    """A store's trials, curves and predictions in a fixed order, without what differs between equal runs."""
    trials = store.trials().drop("pack_id", "seconds", "started_at", "finished_at").sort("trial_id")
    curves = store.curves().drop("pack_id").sort("trial_id", "epoch")
    return trials, curves, store.predictions().drop("pack_id").sort("trial_id", "sequence", "frame")


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


@pytest.fixture(scope="module")
def one_thread():
    """Torch on one thread, as a pack's workers have it; afterwards on as many as before."""
    import torch  # here and below: most tests do without it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def networks(face_set):
    """The state dicts of a small emotion and a small identity network that have seen the faces of noise."""
    import small_packs

    return small_packs.pretrained(face_set)


@pytest.fixture(scope="session")
def member(face_set, networks):
    """A function from settings, fold and seed to a new member."""
    import small_packs

    return functools.partial(small_packs.member, face_set, networks)


@pytest.fixture(scope="session")
def train(face_set, networks):
    """A function that trains a pack: its members' test probabilities and their curves."""
    import small_packs

    return functools.partial(small_packs.train, faces=face_set, networks=networks)


TINY_STUDY = """
name: tiny
question: Does it see?
dataset: oulu-casia
folds: [0, 3]
base: {depth: 10, epochs: 2, batch_size: 16, lr: 0.1, augment: false}
design:
  cells: [{variant: original}, {variant: f}]
  grid: {id_rate: [0.5, 1.0]}
trunks:
  emotion: {epochs: 1, batch_size: 16}
  identity: {epochs: 1, batch_size: 16}
report: {by: id_rate}
"""


@pytest.fixture(scope="session")
def trained_store(tmp_path_factory):
    """A store with the study `tiny` trained on faces of noise: four cells, folds 0 and 3. Not to be written to."""
    store = tmp_path_factory.mktemp("trained") / "store"
    people = [(f"P{i:02}", label, frame) for i in range(20) for label in CLASSES for frame in "12"]
    sets = {
        "oulu-casia": (CLASSES, [Face(p, c, f"{p}/{c}", f, "", f"{p}/{c}/{f}") for p, c, f in people]),
        "ferplus": (CLASSES, [Face("", CLASSES[i % 6], f"{i:02}", "", "train", f"{i}") for i in range(48)]),
        "casia-webface": ((), [Face(f"{i % 4:07}", "", f"{i:03}", "", "", f"{i}") for i in range(48)]),
    }
    for name, (classes, rows) in sets.items():
        pixels = generator("tiny", name).integers(0, 256, (len(rows), 80, 80), dtype=np.uint8)
        prepared.save(store / "data" / name, name, classes, True, pixels, rows, [], {})
    file = store / "tiny.yaml"
    file.write_text(TINY_STUDY)
    assert idenctl("study", "run", file, "--engine", "inline", "--store", store).returncode == 0
    return store


@pytest.fixture(scope="session")
def prepared_store(tmp_path_factory):
    """A store with prepared sets of noise and the two trunks of a small study. Not to be written to."""
    import small_study

    return small_study.fill(tmp_path_factory.mktemp("prepared-store"))


@pytest.fixture(scope="session")
def uninterrupted(prepared_store, tmp_path_factory):
    """The store after the small study has run through on Ray Tune without a stop. Not to be written to."""
    import small_study

    store = shutil.copytree(prepared_store, tmp_path_factory.mktemp("uninterrupted") / "store")
    status, said = small_study.run_on_ray(store)
    assert status == 0, said
    assert "Traceback" not in said
    return store


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, driven by playwright; not longer than a module, as it keeps an event loop running."""
    if not (chromium := shutil.which("chromium") or shutil.which("chromium-browser")):
        pytest.skip("Chromium is not installed; next: make debian, as root")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=PATIENCE)
        yield started
        started.close()


@pytest.fixture(scope="session")
def cluster():
    if not PROGRAMS:
        pytest.skip("PostgreSQL is not installed; next: make debian, as root")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path is short
    try:
        server = Postgres(folder)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(cluster):
    """The cluster, running, with nothing of earlier tests in it."""
    cluster.clear()
    return cluster


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A store with a whole search, its mirror optuna.db beside. Not to be written to."""
    root = tmp_path_factory.mktemp("finished")
    assert run_study(root, mirrored(f"sqlite:///{root / 'optuna.db'}")).returncode == 0
    return root


@pytest.fixture
def searched(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "searched")


class Killed(BaseException):
    """What a process that is killed does to whoever waits for it, within this process."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit status, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def idenctl(*arguments):
    """`idenctl …` in this process: loading torch for each command would take longer than all the rest."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["idenctl", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
    return Ended(status, stdout.getvalue(), stderr.getvalue())


def run_study(root, content):
    """`idenctl study run` of a study file, which is written into the folder that becomes the store."""
    return idenctl("study", "run", written(root, content), "--engine", "inline", "--store", root)


@pytest.fixture(scope="module")
def server():
    from s3 import S3  # here: most tests do without it

    server = S3()
    yield server
    server.stop()


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    """The server, its bucket empty, as this process and those that it starts reach it; they are one node."""
    import buckets
    from s3 import BUCKET, KEYS

    server.fails, server.before = (lambda *request: False), (lambda *request: None)
    for key in server.objects():
        server.client.delete_object(Bucket=BUCKET, Key=key)
    server.asked.clear()
    for name, value in KEYS.items() | {("AWS_ENDPOINT_URL", server.url), ("AWS_EC2_METADATA_DISABLED", "true")}:
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    buckets.node(monkeypatch, tmp_path, "one")
    return server


@pytest.fixture
def shares(tmp_path, monkeypatch):
    """The current folder, with the study `shares` and its workload in it."""
    import buckets

    monkeypatch.chdir(tmp_path)
    Path("shares.py").write_text(buckets.SHARES_MODULE)
    Path("shares.yaml").write_text(buckets.SHARES)
    return tmp_path


@pytest.fixture(autouse=True)
def forgetful(tmp_path_factory):
    """What a test imports from a folder of its own is forgotten after it, as another has a module of that name."""
    path, folders = list(sys.path), str(tmp_path_factory.getbasetemp())
    yield
    sys.path[:] = path
    own = [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(folders)]
    for name in own:
        del sys.modules[name]
