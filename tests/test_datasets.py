"""Folds, and Oulu-CASIA in both editions."""

from collections import Counter

import pytest
from layouts import oulu_tree, reasons

from idennet_core.datasets import casia_webface, ck_plus, ferplus, oulu_casia, prepared
from idennet_core.datasets.folds import fold_of
from idennet_core.datasets.preparation import prepare
from idennet_core.datasets.prepared import Face
from idennet_core.datasets.scan import describe
from idennet_core.datasets.synthetic.sets import synthesise

# folds


def test_eighty_subjects_make_ten_folds_of_eight_dealt_in_order():
    subjects = [f"P{i:03d}" for i in range(1, 81)]
    folds = fold_of(reversed(subjects))
    assert Counter(folds.values()) == {fold: 8 for fold in range(10)}
    assert [s for s, fold in folds.items() if fold == 3] == subjects[3::10]


def test_fewer_subjects_than_folds_are_refused():
    with pytest.raises(ValueError, match="at least 10 subjects, but there are 9"):
        fold_of(f"P{i:03d}" for i in range(9))


def test_no_subject_is_tested_by_a_fold_that_trains_on_it(tmp_path):
    scan = oulu_casia.scan(oulu_tree(tmp_path, subjects=13, frames=3))
    folds = fold_of(p.subject for p in scan.pictures)
    tested = [{p.sequence.split("/")[0] for p in scan.pictures if folds[p.subject] == fold} for fold in range(10)]
    assert sum(map(len, tested)) == len(set.union(*tested)) == 13
    assert [fold["subjects"] for fold in describe(scan)["folds"]] == [2, 2, 2, 1, 1, 1, 1, 1, 1, 1]


# oulu-casia


def test_the_last_three_frames_are_taken_whatever_their_numbers(tmp_path):
    root = oulu_tree(tmp_path, subjects=1, frames=0)
    for expression in oulu_casia.CLASSES:
        for frame in (7, 8, 9, 10, 11):
            (root / f"VL/Strong/P001/{expression.capitalize()}/{frame}.jpeg").write_bytes(b"")
    scan = oulu_casia.scan(root)
    assert [p.frame for p in scan.pictures] == ["9", "10", "11"] * 6
    assert scan.pictures[0] == Face("P001", "anger", "P001/anger", "9", "", "VL/Strong/P001/Anger/9.jpeg")


def test_every_trap_of_the_layout_is_listed_and_the_rest_is_used(tmp_path):
    root = oulu_tree(tmp_path / "B_OriginalImg/B_OriginalImg/OriginalImg", subjects=4)
    strong = root / "VL/Strong"
    for other in ("NI/Strong", "VL/Weak", "VL/Dark"):
        (root / other / "P001/Anger").mkdir(parents=True)
        (root / other / "P001/Anger/000.jpeg").write_bytes(b"")
    (strong / ".DS_Store").write_bytes(b"")
    (strong / "P003").rename(strong / "old")
    (strong / "P001/Anger").rename(strong / "P001/ANGER")  # letter case differs from copy to copy
    (strong / "P001/Fear").rename(strong / "P001/Contempt")
    (strong / "P001/Disgust/._003.jpeg").write_bytes(b"")
    (strong / "P001/Disgust/Thumbs.db").write_bytes(b"")
    (strong / "P002/Sadness/002.jpeg").unlink()
    (strong / "P002/Anger/001.jpeg").unlink()
    (strong / "P002/Anger/002.jpeg").unlink()

    scan = oulu_casia.scan(tmp_path)
    listed = {source.partition("Strong/")[2]: reason for source, reason in reasons(scan.skipped).items()}
    missing = {f"P{i:03d}": "the subject's folder is missing" for i in (3, *range(5, 81))}
    assert listed == missing | {
        ".DS_Store": "not a subject's folder (P001, P002, …)",
        "old": "not a subject's folder (P001, P002, …)",
        "P001/Contempt": "not a folder of one of the six expressions",
        "P001/Fear": "the expression's folder is missing",
        "P001/Disgust/._003.jpeg": "not a picture (.jpeg, .jpg or .png)",
        "P001/Disgust/Thumbs.db": "not a picture (.jpeg, .jpg or .png)",
        "P002/Anger": "2 frames, the last 3 are needed",
        "P002/Sadness": "a frame is missing among the last 3: the ones left are used",
    }
    assert len({p.sequence for p in scan.pictures}) == 3 * 6 - 2
    assert all(count == 3 for count in Counter(p.sequence for p in scan.pictures).values())
    assert [p.frame for p in scan.pictures if p.sequence == "P002/sadness"] == ["000", "001", "003"]


def test_what_is_there_in_two_spellings_or_formats_counts_once_and_the_other_is_named(tmp_path):
    root = oulu_tree(tmp_path, subjects=2, frames=4)
    (tmp_path / "SYNTHETIC.json").write_text("{}")
    strong = root / "VL/Strong"
    oulu_tree(tmp_path / "second", subjects=2, frames=5)
    (tmp_path / "second/VL/Strong/P002").rename(strong / "p002")
    (tmp_path / "second/VL/Strong/P001/Fear").rename(strong / "P001/fear")
    for frame in ("002", "003"):
        (strong / f"P001/Anger/{frame}.png").write_bytes(b"")
    scan = oulu_casia.scan(root / "VL")
    assert len({p.source for p in scan.pictures}) == len(scan.pictures) == 2 * 6 * 3
    assert {p.frame for p in scan.pictures} == {"001", "002", "003"}
    assert reasons(scan.skipped) == {
        "Strong/p002": "another spelling of P002, which counts",
        "Strong/P001/fear": "another spelling of Fear, which counts",
        "Strong/P001/Anger/002.png": "the same frame as 002.jpeg, which counts",
        "Strong/P001/Anger/003.png": "the same frame as 003.jpeg, which counts",
    }


@pytest.mark.parametrize("inside", ["", "VL", "VL/Strong"])
def test_the_root_may_lie_inside_the_layout(tmp_path, inside):
    scan = oulu_casia.scan(oulu_tree(tmp_path, subjects=2) / inside)
    assert len(scan.pictures) == 36
    assert scan.read(scan.pictures[0]).shape == (120, 160, 3)


def test_a_part_of_a_drawn_set_is_known_as_synthetic(tmp_path):
    root = oulu_tree(tmp_path / "OriginalImg", subjects=2)
    assert not oulu_casia.scan(root).synthetic
    (tmp_path / "SYNTHETIC.json").write_text("{}")
    for place in (tmp_path, root, root / "VL/Strong"):
        assert oulu_casia.scan(place).synthetic
    assert oulu_casia.scan(root).skipped == []  # nobody expects 80 people of a drawn set


@pytest.mark.parametrize("dataset", [oulu_casia, ferplus, casia_webface])
def test_another_layout_is_refused_with_what_was_sought_and_found(tmp_path, dataset):
    sought = {"oulu-casia": "VL/Strong/P001", "ferplus": "fer2013.csv", "casia-webface": "0000045"}[dataset.NAME]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        dataset.scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is empty"):
        dataset.scan(tmp_path)
    (tmp_path / "holiday.zip").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="is a file"):
        dataset.scan(tmp_path / "holiday.zip")
    with pytest.raises((ValueError, FileNotFoundError), match=rf"{sought}.*found holiday\.zip") as refusal:
        dataset.scan(tmp_path)
    assert "\n" not in str(refusal.value)


def test_links_that_lead_to_themselves_or_back_up_do_not_stop_the_search(tmp_path):
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "back").symlink_to(".")
    (tmp_path / "nowhere").symlink_to("gone")
    oulu_tree(tmp_path / "B_OriginalImg/OriginalImg", subjects=2)
    scan = oulu_casia.scan(tmp_path)
    assert {p.source.partition("/VL")[0] for p in scan.pictures} == {"B_OriginalImg/OriginalImg"}
    with pytest.raises(ValueError, match=r"is not ck\+: looked for .* found B_OriginalImg, back, itself, nowhere"):
        ck_plus.scan(tmp_path)


@pytest.mark.parametrize("prefix", ["PreProcess_Img", "PreProcessImg", "PreProcess", "Oulu_CASIA/PreProcess_Img"])
def test_the_cropped_edition_is_read_as_faces_already_cut_out(tmp_path, prefix):
    oulu_tree(tmp_path / prefix, subjects=2, light="VL_Acropped")
    oulu_tree(tmp_path / prefix, subjects=2, light="NI_Acropped")
    scan = oulu_casia.scan(tmp_path)
    assert (scan.cropped, scan.protocol["edition"], len(scan.pictures)) == (True, "cropped", 36)
    assert scan.pictures[0].source == f"{prefix}/VL_Acropped/Strong/P001/Anger/001.jpeg"
    inside = oulu_casia.scan(tmp_path / prefix / "VL_Acropped/Strong")
    assert [p.sequence for p in inside.pictures] == [p.sequence for p in scan.pictures]
    assert inside.cropped


@pytest.mark.parametrize("prefix", ["OriginalImg", "B_OriginalImg/B_OriginalImg/OriginalImg"])
def test_of_both_editions_the_original_is_used_and_the_other_named(tmp_path, prefix):
    oulu_tree(tmp_path / "PreProcess_Img", subjects=2, light="VL_Acropped")
    oulu_tree(tmp_path / prefix, subjects=2)
    scan = oulu_casia.scan(tmp_path)
    assert (scan.cropped, scan.protocol["edition"]) == (False, "original")
    assert all(picture.source.startswith(f"{prefix}/VL/") for picture in scan.pictures)
    [reason] = [s.reason for s in scan.skipped if s.source == "PreProcess_Img/VL_Acropped/Strong"]
    assert reason == "the cropped edition, beside the original, which is used: give it as --root to use it instead"


def test_the_drawn_cropped_edition_holds_the_drawn_sequences_and_an_infrared_twin(tmp_path):
    whole = synthesise("oulu-casia", tmp_path / "whole", subjects=2, seed=3, processes=1)
    drawn = synthesise("oulu-casia", tmp_path / "cropped", subjects=2, seed=3, processes=1, form="cropped")
    visible, infrared = (drawn.root / f"PreProcess_Img/{light}_Acropped/Strong" for light in ("VL", "NI"))
    frames = {path.relative_to(visible) for path in visible.rglob("*.jpeg")}
    original = whole.root / "OriginalImg/VL/Strong"
    assert frames == {path.relative_to(original) for path in original.rglob("*.jpeg")}
    assert len(frames) == drawn.pictures == whole.pictures
    assert {path.relative_to(infrared) for path in infrared.rglob("*.jpeg")} == {p for p in frames if "P001" in p.parts}
    scan = oulu_casia.scan(drawn.root)
    assert {p.source.split("/")[1] for p in scan.pictures} == {"VL_Acropped"}
    result = prepare(scan, tmp_path / "store/oulu-casia", None, {"points": "cropped"})
    assert result.metadata["num_faces"] == 2 * 6 * 3
    assert prepared.load(tmp_path / "store/oulu-casia").synthetic


def test_every_fold_and_count_of_show_is_what_a_walk_over_the_files_gives(tmp_path):
    root = oulu_tree(tmp_path, subjects=23)
    described = describe(oulu_casia.scan(root))
    subjects = sorted({path.parts[-3] for path in root.rglob("*.jpeg")})
    for fold, counted in enumerate(described["folds"]):
        held = subjects[fold::10]
        assert counted == {
            "fold": fold,
            "subjects": len(held),
            "sequences": 6 * len(held),
            "frames": 18 * len(held),
        }
    keys = {"dataset", "sequences", "subjects", "frames", "classes", "folds", "splits", "skipped"}
    assert keys <= described.keys()
    assert (described["dataset"], described["subjects"], described["sequences"]) == ("oulu-casia", 23, 138)
