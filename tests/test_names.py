"""Names that others chose: none leads out of the store, and none is shown as what it is not."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_STUDY, changed, idenctl
from study_files import GOOD, load, refused, written

from idennet_core import pretraining
from idennet_core.datasets.unfinished import Unfinished
from orchestrator import frozen, kept, names, record
from orchestrator.store import Store

HOSTILE = {
    "up": "../up", "root": "/etc", "inside": "a/b", "above": "..", "here": ".", "windows": "a\\b", "drive": "C:a",
    "nul": "a\0b", "long": "a" * 300, "cyrillic": "\u043eulu", "full width": "\uff4fulu", "turned": "oulu\u202e",
    "combining": "e\u0301", "invisible": "oulu\u200b", "digits": "٣", "dot": "oulu.", "home": "~", "run": "$(id)",
    "lines": "a\nb", "end": "a\n", "space": "a b", "empty": "", "device": "nul", "devices": "Com1", "half": "\ud800",
    "colour": "\x1b[31mred", "option": "--help", "star": "*",
}  # fmt: skip
each_hostile = pytest.mark.parametrize("name", HOSTILE.values(), ids=ascii)
each_typed = pytest.mark.parametrize("name", [HOSTILE[key] for key in HOSTILE if key != "option"], ids=ascii)


def harmless(line):
    """One line of printable ASCII, but for what stands in the path of a file."""
    assert line.isprintable()
    return line.isascii()


@each_hostile
@pytest.mark.parametrize("what", names.RULES)
def test_a_name_that_could_lead_elsewhere_or_pass_for_another_is_refused(what, name):
    line = refused(lambda: names.named(what, name))
    assert harmless(line)
    assert names.RULES[what][1] in line


@pytest.mark.parametrize("name", ["oulu_idrate", "A-1", "nullity", "oulu_idrate@quick", "f" * 64])
def test_a_sound_name_is_itself(name):
    assert names.named("a study's name", name) == name


def test_a_long_name_that_is_refused_is_shown_to_its_quotes_both():
    assert refused(lambda: names.named("a name", "l" * 70)).endswith(f"got '{'l' * 55}...'")


@each_hostile
@pytest.mark.parametrize("line", ["name: small", "dataset: oulu-casia", "  quick:", "  variant: if"])
def test_a_study_file_cannot_bring_in_such_a_name(tmp_path, name, line):
    key, _, value = line.partition(":")
    said = json.dumps(name)  # a double-quoted text of YAML too
    text = changed(GOOD, line + "\n", f"{key}: {said}\n" if value else f"  {said}:\n")
    assert harmless(refused(lambda: load(written(tmp_path, text))).partition("small.yaml:")[2])


@each_typed
@pytest.mark.parametrize(
    "command",
    [
        ["report"], ["study", "status"], ["dashboard"], ["export", "--out", "x.onnx"],
        ["heatmap", "--out", "x.png"], ["predict", "x.png", "--trial"], ["predict", "x.png", "--study"],
        ["data", "show", "--root", "."], ["data", "prepare", "--root", "."],
        ["study", "plan", "study.yaml", "--profile"], ["study", "run", "study.yaml", "--profile"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_command_refuses_such_a_name_in_one_line_with_status_2(tmp_path, monkeypatch, command, name):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(TINY_STUDY)
    Path("x.png").touch()
    done = idenctl(*command, name, *(["--store", "runs"] if "show" not in command else []))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert harmless(done.stderr.rstrip("\n"))


@each_hostile
def test_a_plan_of_the_store_cannot_name_faces_elsewhere(trained_store, tmp_path, name):
    store = shutil.copytree(trained_store, tmp_path / "store")
    plan = json.loads((store / "studies/tiny/plan.json").read_text())
    (store / "studies/tiny/plan.json").write_text(json.dumps(plan | {"dataset": name}))
    done = idenctl("heatmap", "tiny", "--out", tmp_path / "x.png", "--store", store)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "x.png").exists()


@each_hostile
def test_a_head_cannot_name_a_trunk_elsewhere(tmp_path, name):
    (tmp_path / "trunks").mkdir()
    assert harmless(refused(lambda: pretraining.load_network(tmp_path / "trunks", name)))


def test_what_a_stored_file_says_is_shown_and_never_obeyed(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"question": "\x1b]0;title\x07 [/red] \u202e?", "cells": [{"a\x00": ["\x9b1m"]}]}))
    found = kept.read(path, {"question": str, "cells": list}, "run it again")
    assert found == {"question": r"\x1b]0;title\x07 [/red] \u202e?", "cells": [{r"a\x00": [r"\x9b1m"]}]}


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"[" * 100_000, b'{"cells": ' + b"[" * 100_000, b"\xff\xfe", b'{"cells": 3}', b"null"],
    ids=lambda content: ascii(content[:12]),
)
def test_a_stored_file_that_is_none_is_named_in_one_line(tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    line = refused(lambda: kept.read(tmp_path / "plan.json", {"cells": list}, "run it again"))
    assert str(tmp_path / "plan.json") in line
    assert line.endswith("run it again")


@pytest.mark.parametrize(
    "change",
    [
        {"cells": [{}]}, {"cells": [3]}, {"folds": ["0"]}, {"seeds": [None]}, {"report": {}}, {"study": 3},
        {"report": {"by": "lr", "baselines": [3]}}, {"workload": 3}, {"search": 3}, {"reference": []}, {"predicted": 3},
        *({"predicted": {part: odd}} for part in ("packs", "trunks") for odd in (3, [3], {"t": 3}, {"t": {}})),
    ],
    ids=str,
)  # fmt: skip
def test_a_plan_of_another_shape_is_damaged_and_says_where(tmp_path, change):
    cell = {"label": {}, "settings": {}, "configuration_id": "c"}
    plan = {"study": "s", "dataset": "oulu-casia", "question": "?", "data_id": "d", "cells": [cell], "folds": [0, None]}
    plan |= {"seeds": [0], "synthetic": True, "report": {"by": "lr", "baselines": []}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert frozen.read_plan(tmp_path / "plan.json") == plan
    (tmp_path / "plan.json").write_text(json.dumps(plan | change))
    assert "is damaged: " in refused(lambda: frozen.read_plan(tmp_path / "plan.json"))


PROCEDURE = {"outer": None, "over": True, "points": [], "chosen": [], "importance": {}, "refit": []}


@pytest.mark.parametrize(
    "change",
    [
        {"procedures": []}, {"procedures": [3]}, {"procedures": [{}]}, {"search": {}},
        *({"procedures": [PROCEDURE | {part: [odd]}]} for part in ("points", "refit") for odd in (3, {}, {"state": 3})),
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_a_search_of_another_shape_is_damaged_and_says_where(tmp_path, change):
    search = {"sampler": "tpe", "order": "synchronous", "select": "validation", "configurations": 3}
    content = {"search": search | {"objectives": ["accuracy"], "space": {}}, "procedures": [PROCEDURE]}
    (tmp_path / "search.json").write_text(json.dumps(content))
    assert frozen.read_search(tmp_path / "search.json") == content
    (tmp_path / "search.json").write_text(json.dumps(content | change))
    assert "is damaged: " in refused(lambda: frozen.read_search(tmp_path / "search.json"))


# links


@pytest.fixture
def outside(tmp_path):
    """A file that is not the store's."""
    path = tmp_path / "outside.txt"
    path.write_text("mine")
    return path


def test_nothing_is_written_through_a_link_in_the_store(tmp_path, outside):
    store = Store(tmp_path / "store").open()
    (store.studies / "small").mkdir(parents=True)
    (store.studies / "small/.lock").symlink_to(outside)
    with pytest.raises(OSError, match="Too many levels of symbolic links"), record.only_run(store, "small"):
        pass
    place = store.data / ".oulu-casia.unfinished"
    for name in ("faces.npy", "journal.jsonl"):
        place.mkdir(parents=True)
        (place / name).symlink_to(outside)
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            Unfinished(store.data / "oulu-casia", "a")
        shutil.rmtree(place)
    assert outside.read_text() == "mine"


def test_a_file_that_a_link_stands_for_is_replaced_and_what_it_led_to_is_left(tmp_path, outside):
    from orchestrator.cli.report import write
    from orchestrator.store import write_json

    for writes in (lambda path: write_json(path, {}), lambda path: write(path, "new")):
        link = tmp_path / "link"
        link.symlink_to(outside)
        writes(link)
        assert not link.is_symlink()
        assert outside.read_text() == "mine"
        link.unlink()


def test_a_link_in_a_data_set_is_read_as_a_picture_and_a_pipe_or_device_is_not(tmp_path):
    from layouts import picture

    from idennet_core.datasets import casia_webface
    from idennet_core.datasets.preparation import prepare

    folder = tmp_path / "set/0000045"
    folder.mkdir(parents=True)
    (tmp_path / "elsewhere.png").write_bytes(picture("elsewhere"))
    (folder / "1.png").symlink_to(tmp_path / "elsewhere.png")
    (folder / "2.png").symlink_to("/etc/passwd")
    (folder / "3.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "4.png")
    (folder / "5.png").symlink_to("5.png")
    found = prepare(casia_webface.scan(tmp_path / "set"), tmp_path / "store/casia-webface", None, {})
    assert {source: entry["reason"] for entry in found.metadata["skipped"] for source in entry["sources"]} == {
        "0000045/2.png": "not a readable picture: empty, cut off or of another format",
        "0000045/3.png": "a picture's file must be a file, but this is a pipe, a socket or a device",
        "0000045/4.png": "a picture's file must be a file, but this is a pipe, a socket or a device",
        "0000045/5.png": "cannot be read: Too many levels of symbolic links",
    }
    assert np.load(tmp_path / "store/casia-webface/faces.npy").shape == (1, 80, 80)
