"""The shipped study files: the paper's numbers, plans and runs on small prepared sets of noise."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import changed, idenctl

from idennet_core.datasets import ferplus, oulu_casia, prepared
from idennet_core.datasets.prepared import Face
from idennet_core.streams import generator
from orchestrator import runner, study
from orchestrator.design import cells
from orchestrator.idennet import Idennet
from orchestrator.planning import Capacity
from orchestrator.report.cells import published
from orchestrator.store import Store

STUDIES = sorted((Path(__file__).parent.parent / "studies").glob("*.yaml"))
PAPERS = [path for path in STUDIES if "\nreference:" in path.read_text()]  # those with numbers of the paper beside
PAPER = Path(__file__).parents[2] / "shared" / "reference" / "idennet-paper.txt"
SEVEN = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
SHORT = ["depth=10", "epochs=1", "trunks.emotion.epochs=1", "trunks.identity.epochs=1"]
NAMES = {
    "Original Network(baseline)": "original",
    "Original": "original",
    "Ours(IDEnNetI)": "i",
    "Ours(IDEnNetF )": "f",
    "Ours(IDEnNetIF )": "if",
    "IDEnNetI": "i",
    "IDEnNetF": "f",
    "IDEnNetIF": "if",
}  # fmt: skip
TABLES = {"oulu_variants": 1, "ck_variants": 2, "mmi_variants": 3, "ck_depths": 4, "ferplus_depths": 5}
FIGURE_6 = {"Original": "original", "IDEnNet": "i", "Fusion": "f", "Multi Identity with Fusion": "if"}
FIGURE_6_HEAD = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "all")
SPLIT_STUDY = """
name: split
question: Does it run without folds?
dataset: ferplus
folds: none
base: {depth: 10, epochs: 2, batch_size: 16, lr: 0.1, augment: false}
design: {grid: {variant: [original, f]}}
trunks: {emotion: {epochs: 1, batch_size: 16}, identity: {epochs: 1, batch_size: 16}}
report: {by: variant, baselines: [{variant: original}]}
"""


@pytest.fixture(scope="session")
def noise_store(tmp_path_factory):
    """A store with a prepared set of noise in the place of every data set, and nothing else."""
    store = tmp_path_factory.mktemp("noise-store")

    def save(name, classes, rows):
        pixels = generator("shipped", name).integers(0, 256, (len(rows), 80, 80), dtype=np.uint8)
        prepared.save(store / "data" / name, name, classes, True, pixels, rows, [], {})

    for name, classes in (("oulu-casia", oulu_casia.CLASSES), ("ck+", SEVEN), ("mmi", oulu_casia.CLASSES)):
        people = [(f"P{i:02}", label) for i in range(22) for label in classes]  # more pictures than a batch of 128
        save(name, classes, [Face(p, label, f"{p}/{label}", "1", "", f"{p}/{label}") for p, label in people])
    splits = ["train"] * 5 + ["valid", "test"]
    save(
        "ferplus",
        ferplus.CLASSES,
        [Face("", ferplus.CLASSES[i % 8], "", f"{i:03}", splits[i % 7], str(i)) for i in range(168)],
    )
    save("casia-webface", (), [Face(f"{i % 4:07}", "", "", f"{i // 4:03}", "", f"{i}") for i in range(64)])
    return store


@pytest.fixture
def store(noise_store, tmp_path):
    shutil.copytree(noise_store, tmp_path / "store")
    return tmp_path / "store"


def in_store(store, *arguments):
    return idenctl(*arguments, "--store", store)


def shipped(name):
    return next(path for path in STUDIES if path.stem == name)


def load(path, profile):
    return study.load(path, profile, rules_of=lambda name: Idennet.rules)


def plan(store, path, profile="quick", *overrides):
    sets = [word for override in overrides for word in ("--set", override)]
    done = in_store(store, "study", "plan", path, "--profile", profile, *sets, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(store, path, *overrides):
    sets = [word for override in overrides for word in ("--set", override)]
    done = in_store(store, "study", "run", path, "--profile", "quick", "--engine", "inline", *sets)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
@pytest.mark.parametrize("profile", ["quick", "paper"])
def test_every_shipped_study_can_be_planned_and_says_its_profile(path, profile, noise_store):
    wanted = load(path, profile)
    planned = runner.plan(wanted, Store(noise_store), Capacity("cpu", 1, 2))
    assert wanted.folder == f"{path.stem}@{profile}"
    assert planned.synthetic
    if wanted.search:
        assert len(planned.trials) == wanted.search.batch * len(wanted.folds) * len(wanted.seeds)
    else:
        configurations = {configuration.configuration_id for configuration in planned.configurations}
        assert len(configurations) == (10 if path.stem == "components" else len(cells(wanted)))
        assert len(planned.trials) == len(configurations) * len(wanted.folds) * len(wanted.seeds)
    assert sum(len(pack.trials) for pack in planned.packs) == len(planned.trials)
    assert {recipe["task"] for recipe in planned.trunks.values()} == {"emotion", "identity"}


def test_the_focal_search_can_be_nested_in_small_and_its_plan_counts_that_apart(noise_store):
    planned = runner.plan(load(shipped("focal_search"), "nested"), Store(noise_store), Capacity("cpu", 1, 2))
    # 3 configurations: on 3 folds; the chosen one on these; within each of 3 outer folds on the 2 others, and tested
    assert planned.search.trials_to_come() == {"search": 9, "refit": 3, "nested": 3 * (3 * 2 + 1)}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_profile_paper_changes_nothing_and_is_the_papers_schedule(path):
    paper, plain = load(path, "paper"), load(path, None)
    assert paper.model_copy(update={"profile": None}) == plain
    settings = [paper.base] if paper.search else [cell.settings for cell in cells(paper)]
    assert {(s["lr"], s["epochs"], s["batch_size"]) for s in settings} == {(0.01, 100, 128)}
    assert {s["augment"] for s in settings} == {
        "components": {True, False}, "ferplus_depths": {False}
    }.get(path.stem, {True})  # fmt: skip
    assert {s["depth"] for s in settings} == {
        "mmi_variants": {16}, "ck_depths": {16, 22, 40}, "ferplus_depths": {16, 22, 40}
    }.get(path.stem, {40})  # fmt: skip


def test_the_study_of_figure_3_holds_original_f_and_five_rates_on_ten_folds():
    for profile in (None, "quick"):
        wanted = load(shipped("oulu_idrate"), profile)
        labels = [dict(cell.label) for cell in cells(wanted)]
        rates = [{"id_rate": rate} for rate in (0.2, 0.4, 0.6, 0.8, 1.0)]
        assert labels == [{"variant": "original"}, {"variant": "f"}, *rates]
        assert len(labels) * len(wanted.folds) * len(wanted.seeds) == 70
        assert wanted.reference.values == {0: 87.18, 0.2: 87.56, 0.4: 89.06, 0.6: 89.46, 0.8: 91.02, 1: 93.95}
        assert "unclear" in wanted.reference.note


def test_components_that_change_nothing_alone_are_said_and_run_once(noise_store):
    done = in_store(noise_store, "study", "plan", shipped("components"), "--profile", "quick")
    said = " ".join(done.stdout.split())
    alone = "components=none; components=only focal constraint; components=only identity trunk"
    assert f"the same configuration, run once: {alone} 100 trials" in said


def lines_after(start):
    if not PAPER.is_file():
        pytest.skip("the paper's text is not here")
    return [line.strip() for line in PAPER.read_text().partition(start)[2].splitlines()]


@pytest.mark.parametrize(("name", "table"), TABLES.items())
def test_the_reference_of_a_table_is_what_the_paper_prints(name, table):
    found = {}
    for line in lines_after(f"Table {table}. Average"):
        match = re.fullmatch(r"(\D*?) ((?:\d+\.\d+%? ?)+)", line)
        if match and match[1] in NAMES:
            found.setdefault(NAMES[match[1]], [float(value.rstrip("%")) for value in match[2].split()])
    reference = load(shipped(name), None).reference
    assert f"Table {table}" in reference.source
    if reference.by == "variant":
        assert {key: [value] for key, value in reference.values.items()} == found
    else:
        assert {key: list(row.values()) for key, row in reference.values.items()} == found
        assert all(list(row) == [16, 22, 40] for row in reference.values.values())


def test_the_reference_of_figure_6_is_what_the_paper_prints():
    found = {}
    for line in lines_after("An Di Fe Ha Sa Su Average"):
        *words, last = re.split(r" (?=[\d.]+(?: |$))", line)
        if words and words[0] in FIGURE_6:
            found[FIGURE_6[words[0]]] = dict(zip(FIGURE_6_HEAD, map(float, [*words[1:], last]), strict=True))
    assert load(shipped("oulu_expressions"), None).reference.values == found


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_every_cell_of_a_shipped_study_has_a_number_of_the_paper_but_f_in_figure_3(path):
    wanted = load(path, None)
    reference = json.loads(json.dumps(wanted.reference.model_dump()))
    without = [
        dict(cell.label)
        for cell in cells(wanted)
        if "all" not in published({"label": cell.label, "settings": cell.settings}, reference)
    ]
    assert without == ([{"variant": "f"}] if path.stem == "oulu_idrate" else [])


def test_cells_that_studies_share_are_trained_once(store):
    of_table = plan(store, shipped("oulu_variants"))["cells"]
    of_curve = plan(store, shipped("oulu_idrate"))["cells"]
    ids = [{str(cell["label"]): cell["configuration_id"] for cell in of_study} for of_study in (of_table, of_curve)]
    assert ids[0]["{'variant': 'if'}"] == ids[1]["{'id_rate': 1.0}"]
    run(store, shipped("oulu_variants"), *SHORT)
    first = Store(store).trials().sort("trial_id")
    assert first.height == 40
    planned = plan(store, shipped("oulu_idrate"), "quick", *SHORT)
    assert (planned["trials"], planned["stored"]) == (70, 30)
    assert sum(pack["trials"] for pack in planned["packs"]) == 40
    run(store, shipped("oulu_idrate"), *SHORT)
    run(store, shipped("oulu_expressions"), *SHORT)  # holds nothing that oulu_variants does not
    files = [pl.read_parquet(path) for path in (store / "trials").glob("*.parquet")]
    assert sum(file.height for file in files) == 80
    assert first.equals(Store(store).trials().sort("trial_id").join(first, on="trial_id", how="semi"))
    said = in_store(store, "report", "oulu_expressions")
    assert said.returncode == 0, said.stderr
    assert "SYNTHETIC accuracy % by expression" in said.stdout


def test_cells_of_ck_variants_are_cells_of_ck_depths(noise_store):
    found = [
        {cell["configuration_id"] for cell in plan(noise_store, shipped(name))["cells"]}
        for name in ("ck_variants", "ck_depths")
    ]
    assert found[0] < found[1]


# without folds


@pytest.fixture(scope="session")
def split_store(noise_store, tmp_path_factory):
    store = tmp_path_factory.mktemp("split") / "store"
    shutil.copytree(noise_store, store)
    (store / "split.yaml").write_text(SPLIT_STUDY)
    done = in_store(store, "study", "run", store / "split.yaml", "--engine", "inline")
    assert done.returncode == 0, done.stderr
    return store


def test_without_folds_trials_train_on_the_train_split_and_test_on_the_test_split(split_store):
    trials, predictions = Store(split_store).trials(), Store(split_store).predictions()
    assert trials["fold"].to_list() == [None, None]
    assert trials.select("n_train", "n_test").unique().row(0) == (120, 24)
    assert trials["sequence_accuracy"].to_list() == [None, None], "the set has no sequences"
    faces = prepared.load(split_store / "data/ferplus")
    tested = set(faces.frame[faces.split == "test"].tolist())
    for _, rows in predictions.group_by("trial_id"):
        assert set(rows["frame"]) == tested
        assert rows.height == 24
    assert "valid" in faces.split
    frozen = study.load(split_store / "studies/split/study.yaml", rules_of=lambda name: Idennet.rules)
    assert frozen.folds == [None]
    assert plan_again(split_store)["stored"] == 2


def plan_again(store):
    done = in_store(store, "study", "plan", store / "split.yaml", "--json")
    return json.loads(done.stdout)


def test_the_report_of_a_study_without_folds_speaks_of_pictures_in_every_format(split_store):
    for format in ("terminal", "markdown", "csv", "json"):
        done = in_store(split_store, "report", "split", "--format", format)
        assert done.returncode == 0, done.stderr
        if format in ("terminal", "markdown"):
            said = " ".join(done.stdout.split())
            assert "percentile bootstrap interval over the 24 test pictures" in said
            assert "Nadeau" not in said
    report = json.loads(done.stdout)
    right = Store(split_store).trials().select("configuration_id", "accuracy")
    for row in report["rows"]:
        (accuracy,) = right.filter(configuration_id=row["configuration_id"])["accuracy"]
        assert row["accuracy"]["mean"] == pytest.approx(accuracy * 100)
        assert sum(map(sum, row["confusion"]["frames"])) == 24
        assert row["subjects"] == []


@pytest.mark.parametrize(
    ("written", "instead_of", "message"),
    [
        ("dataset: oulu-casia", "dataset: ferplus", "oulu-casia has no split test and no split train; set folds: all"),
        (
            "epochs: 2, batch_size: 500",
            "epochs: 2, batch_size: 16",
            "batch_size must not exceed the training pictures, got 500",
        ),
        ("folds: all", "folds: none", "folds are made of subjects, ferplus has no subjects; set folds: none"),
        (
            "[original, i]",
            "[original, f]",
            "the identity loss needs subjects, ferplus has none, got the cell variant=i;",
        ),
        (
            "[original, if]",
            "[original, f]",
            "the identity loss needs subjects, ferplus has none, got the cell variant=if",
        ),
        (
            "dataset: casia-webface",
            "dataset: ferplus",
            "a study needs expressions, casia-webface has none; set dataset",
        ),
    ],
)
def test_what_a_data_set_cannot_give_is_refused_in_one_line(store, written, instead_of, message):
    path = store / "split.yaml"
    path.write_text(changed(SPLIT_STUDY, instead_of, written))
    done = in_store(store, "study", "run", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("task", "dataset", "things", "is_prepared"),
    [
        ("emotion", "casia-webface", "expressions", True),
        ("emotion", "casia-webface", "expressions", False),
        ("identity", "ferplus", "subjects", True),
    ],
)
def test_a_trunk_on_a_data_set_without_what_it_learns_is_refused_before_that_is_prepared(
    store, task, dataset, things, is_prepared
):
    if not is_prepared:
        shutil.rmtree(store / "data" / dataset)
    for command in (("study", "plan"), ("study", "run", "--engine", "inline"), ("trunk", "train")):
        done = in_store(
            store, *command[:2], shipped("oulu_idrate"), *command[2:], "--set", f"trunks.{task}.dataset={dataset}"
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"error: the {task} trunk needs a data set with two {things} or more, {dataset} has none; "
            f"set dataset under trunks: {task} to another one\n"
        )


def test_a_study_of_a_data_set_without_expressions_is_refused_before_that_is_prepared(store):
    shutil.rmtree(store / "data/casia-webface")
    path = store / "people.yaml"
    path.write_text(SPLIT_STUDY.replace("dataset: ferplus", "dataset: casia-webface"))
    done = in_store(store, "study", "plan", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: a study needs expressions, casia-webface has none; set dataset to another one\n"


def test_an_identity_trunk_on_one_person_is_refused(store):
    shutil.rmtree(store / "data/casia-webface")
    rows = [Face("0000045", "", "", f"{i:03}", "", f"{i}") for i in range(64)]
    pixels = np.zeros((64, 80, 80), np.uint8)
    prepared.save(store / "data/casia-webface", "casia-webface", (), True, pixels, rows, [], {})
    done = in_store(store, "study", "plan", shipped("oulu_idrate"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "the identity trunk needs a data set with two subjects or more, casia-webface has 1; set" in done.stderr


def test_a_reference_for_an_expression_that_the_data_lacks_is_refused(store):
    text = shipped("oulu_expressions").read_text().replace("original: {anger: 73.2,", "original: {contempt: 73.2,")
    (store / "strange.yaml").write_text(text)
    done = in_store(store, "study", "plan", store / "strange.yaml")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "by the expressions of oulu-casia (anger, disgust, fear" in done.stderr
    assert "got contempt; remove them" in done.stderr


def test_an_identity_variant_whose_loss_is_off_needs_no_subjects(store):
    text = SPLIT_STUDY.replace("[original, f]", "[i, if]").replace("{depth: 10", "{alpha: 0, depth: 10")
    (store / "off.yaml").write_text(text.replace("baselines: [{variant: original}]", "baselines: []"))
    done = in_store(store, "study", "plan", store / "off.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"] == 2
