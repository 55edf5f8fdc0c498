"""FER+ in both forms and with both sources of votes; the real label files are read by the test itself too."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from layouts import FER_COLUMNS, fer_folders, fer_tables, reasons, votes, write_csv

from idennet_core.datasets import ferplus, prepared
from idennet_core.datasets.ferplus_votes import majority
from idennet_core.datasets.preparation import prepare
from idennet_core.datasets.prepared import Face
from idennet_core.datasets.scan import describe
from idennet_core.datasets.synthetic.sets import synthesise

REAL = Path(__file__).parents[2] / "shared/data/ferplus"
needs_real_votes = pytest.mark.skipif(not REAL.is_dir(), reason=f"no FER+ label files in {REAL}")
COUNTS = {
    "fer2013new.csv": {"train": 25060, "valid": 3199, "test": 3153},
    "label.csv": {"train": 25045, "valid": 3191, "test": 3137},
}
FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
HAPPY, SAD = votes(happiness=10), votes(sadness=10)


def real_rows():
    with (REAL / "fer2013new.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@needs_real_votes
@pytest.mark.parametrize("source", [None, *COUNTS])
def test_the_real_label_files_give_the_known_counts_without_any_picture(source):
    scan = ferplus.scan(REAL, source)
    described = describe(scan)
    assert described["protocol"] == {
        "votes": source or "fer2013new.csv",
        "rule": "majority",
        "pictures": "missing",
    }
    assert described["splits"] == COUNTS[source or "fer2013new.csv"]
    assert described["label_sources"] == COUNTS
    assert len(scan.pictures) + len(scan.skipped) == {"label.csv": 28558 + 3579 + 3573}.get(source, 35887)


@needs_real_votes
def test_the_training_pictures_of_the_real_table_have_the_known_classes():
    train = Counter(picture.label for picture in ferplus.scan(REAL).pictures if picture.split == "train")
    expected = {"neutral": 8740, "happiness": 7287, "surprise": 3149, "sadness": 3014, "anger": 2100}
    assert train == expected | {"disgust": 119, "fear": 532, "contempt": 119}


@needs_real_votes
def test_labels_without_pictures_are_counted_but_not_prepared(tmp_path):
    with pytest.raises(ValueError, match=r"holds labels without pictures: put fer2013\.csv, or PNG files") as refusal:
        prepare(ferplus.scan(REAL), tmp_path / "ferplus", None, {"points": "cropped"})
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@needs_real_votes
def test_every_row_of_the_real_table_is_used_or_listed_once_pixels_are_there(tmp_path):
    rows = real_rows()
    shutil.copytree(REAL, tmp_path / "set")
    lines = "".join(f"0,0,{row['Usage']}\n" for row in rows)
    (tmp_path / "set/fer2013.csv").write_text(f"emotion,pixels,Usage\n{lines}")
    scan = ferplus.scan(tmp_path / "set")
    described = describe(scan)
    assert described["splits"] == COUNTS["fer2013new.csv"]
    assert scan.missing == ""
    assert len({picture.source for picture in scan.pictures}) + len(scan.skipped) == len(rows) == 35887
    nameless = [entry for entry in described["skipped"] if entry["reason"] == "the picture has no name"]
    assert [entry["count"] for entry in nameless] == [sum(row["Image name"] == "" for row in rows)] == [173]
    with pytest.raises(ValueError, match=r"holds none: give --votes fer2013new\.csv"):
        prepare(ferplus.scan(tmp_path / "set", "label.csv"), tmp_path / "store/ferplus", None, {})


@needs_real_votes
def test_a_real_export_as_files_is_joined_by_name_and_a_name_counts_once(tmp_path):
    """An export writes a file a name: four names occur twice, and the later row finds its name taken."""
    shutil.copytree(REAL, tmp_path / "set")
    rows = [row for row in real_rows() if row["Image name"]]
    for row in rows:
        (tmp_path / "set" / FOLDERS[row["Usage"]] / row["Image name"]).touch()
    assert [len(list((tmp_path / "set" / folder).glob("*.png"))) for folder in FOLDERS.values()] == [28558, 3579, 3573]
    for source, namesakes in (("fer2013new.csv", 4), ("label.csv", 0)):
        scan = ferplus.scan(tmp_path / "set", source)
        taken = [s for s in scan.skipped if s.reason == "the name stands in an earlier row, which counts"]
        assert len(taken) == namesakes
        assert len({picture.source for picture in scan.pictures}) == len(scan.pictures)
        expected = COUNTS[source] | ({"train": 25057} if namesakes else {})  # three of the four elect a class
        assert describe(scan)["splits"] == expected
        assert describe(scan)["label_sources"] == COUNTS


def test_pixels_and_votes_are_joined_by_row_even_where_names_repeat(tmp_path):
    rows = [
        ("Training", "fer0000000.png", HAPPY),
        ("Training", "fer0000001.png", votes(neutral=4, surprise=2, anger=2)),
        ("PublicTest", "", votes(NF=10)),
        ("PrivateTest", "fer0000000.png", votes(contempt=9, unknown=1)),
        ("Training", "fer0000004.png", votes(unknown=10)),
        ("Training", "fer0000005.png", votes(contempt=1, unknown=1, NF=8)),
    ]
    scan = ferplus.scan(fer_tables(tmp_path, rows))
    assert scan.pictures == [
        Face("", "happiness", "", "fer0000000", "train", "fer2013.csv:2"),
        Face("", "contempt", "", "fer0000000", "test", "fer2013.csv:5"),
    ]
    assert [int(scan.read(p).max()) for p in scan.pictures] == [0, 3]
    assert scan.read(scan.pictures[1]).shape == (48, 48)
    assert reasons(scan.skipped) == {
        "fer2013.csv:3": "no majority among the votes",
        "fer2013.csv:4": "the picture has no name",
        "fer2013.csv:6": "voted unknown",
        "fer2013.csv:7": "voted not a face",
    }


def test_every_trap_of_the_folders_is_listed_and_the_rest_is_read(tmp_path):
    rows = [
        ("FER2013Train", "fer0000000.png", HAPPY),
        ("FER2013Train", "fer0000001.png", SAD),
        ("FER2013Valid", "fer0000001.png", SAD),  # the same name in another folder is another picture
        ("FER2013Test", "fer0000003.png", HAPPY),
        ("FER2013Test", "fer0000004.png", votes(NF=10)),
    ]
    root = fer_folders(tmp_path, rows)
    (root / "FER2013Train/fer0000001.png").unlink()
    (root / "FER2013Train/.DS_Store").touch()
    (root / "FER2013Test/Thumbs.db").touch()
    with (root / "FER2013Test/label.csv").open("a") as file:
        file.write('fer0000003.png,"(0, 0, 48, 48)",0,0,0,10,0,0,0,0,0,0\n')
        file.write('../FER2013Train/fer0000000.png,"(0, 0, 48, 48)",0,0,0,10,0,0,0,0,0,0\n')
        file.write('fer0000006.png,"(0, 0, 48, 48)",0,0,0,10,0,0,0,0,0\n')
        file.write('fer0000007.png,"(0, 0, 48, 48)",0,0,0,-9,0,0,0,0,0,0\n')
    scan = ferplus.scan(tmp_path)
    assert scan.protocol == {"votes": "label.csv", "rule": "majority", "pictures": "PNG files"}
    assert [(p.source, p.label, p.split, int(scan.read(p).max())) for p in scan.pictures] == [
        ("FER2013Train/fer0000000.png", "happiness", "train", 0),
        ("FER2013Valid/fer0000001.png", "sadness", "valid", 2),
        ("FER2013Test/fer0000003.png", "happiness", "test", 3),
    ]
    assert reasons(scan.skipped) == {
        "FER2013Train/label.csv:2": "the picture's file is missing",
        "FER2013Test/label.csv:2": "voted not a face",
        "FER2013Test/label.csv:3": "the name stands in an earlier row, which counts",
        "FER2013Test/label.csv:4": "the picture's file is missing",  # no way out of the folder
        "FER2013Test/label.csv:5": "a row must have 12 columns",
        "FER2013Test/label.csv:6": "a vote must be a whole number",
        "FER2013Test/Thumbs.db": "no row of votes names the file",
    }


def test_the_user_chooses_between_two_sources_of_votes(tmp_path):
    root = fer_folders(tmp_path, [(folder, f"{folder}.png", HAPPY) for folder in FOLDERS.values()])
    rows = [(usage, f"{folder}.png", SAD) for usage, folder in FOLDERS.items()]
    write_csv(root / "fer2013new.csv", [FER_COLUMNS, *((usage, name, *counts) for usage, name, counts in rows)])
    seen = {}
    for source in (None, "fer2013new.csv", "label.csv"):
        scan = ferplus.scan(root, source)
        result = prepare(scan, tmp_path / "store/ferplus", None, {"points": "cropped"})
        assert result.metadata["settings"]["votes"] == (source or "fer2013new.csv")
        seen[source] = {picture.label for picture in scan.pictures}
    assert seen == {None: {"sadness"}, "fer2013new.csv": {"sadness"}, "label.csv": {"happiness"}}
    (root / "fer2013new.csv").write_text("name,votes\n")
    assert reasons(ferplus.scan(root, "label.csv").skipped)["fer2013new.csv"].endswith(
        "but has name,votes: give the publisher's file"
    )
    with pytest.raises(ValueError, match="must have the columns Usage,Image name,neutral"):
        ferplus.scan(root)
    (root / "fer2013new.csv").unlink()
    with pytest.raises(ValueError, match=r"--votes must be what .* holds, label\.csv, but got 'fer2013new\.csv'"):
        ferplus.scan(root, "fer2013new.csv")


def test_faulty_rows_are_listed_and_the_others_stay_joined(tmp_path):
    rows = [("Training", f"{i}.png", HAPPY) for i in range(7)]
    root = fer_tables(tmp_path, rows)
    table, pixels = ((root / name).read_text().splitlines() for name in ("fer2013new.csv", "fer2013.csv"))
    table[1] = "Training,0.png,10"
    table[2] = table[2].replace("Training", "Holiday")
    table[3] = table[3].replace("10", "ten")
    pixels[4] = "0,1 2 3"
    pixels[5] = pixels[5].replace("4 4", "4 256", 1)
    pixels[6] = pixels[6].replace("5 5", "5", 1)
    (root / "fer2013new.csv").write_text("\n".join(table))
    (root / "fer2013.csv").write_text("\n".join(pixels))
    result = prepare(ferplus.scan(root), tmp_path / "store/ferplus", None, {"points": "cropped"})
    assert {source: s["reason"] for s in result.metadata["skipped"] for source in s["sources"]} == {
        "fer2013.csv:2": "a row must have 12 columns",
        "fer2013.csv:3": "Usage must be one of Training, PublicTest, PrivateTest",
        "fer2013.csv:4": "a vote must be a whole number",
        "fer2013.csv:5": "a row of fer2013.csv must end with a Usage: Training, PublicTest, PrivateTest",
        "fer2013.csv:6": "a row must have a code, pixels from 0 to 255 and a Usage",
        "fer2013.csv:7": "not a picture of 48x48 pixels",
    }
    assert [int(face.max()) for face in prepared.load(tmp_path / "store/ferplus").faces] == [6]


def test_both_tables_may_begin_with_the_mark_that_spreadsheets_write(tmp_path):
    root = fer_tables(tmp_path, [("Training", f"{i}.png", HAPPY) for i in range(3)])
    for name in ("fer2013new.csv", "fer2013.csv"):
        (root / name).write_bytes("\ufeff".encode() + (root / name).read_bytes())
    prepare(ferplus.scan(root), tmp_path / "store/ferplus", None, {"points": "cropped"})
    assert [int(face.max()) for face in prepared.load(tmp_path / "store/ferplus").faces] == [0, 1, 2]


def test_tables_that_do_not_go_together_are_refused(tmp_path):
    fer_tables(tmp_path, [("Training", "a.png", HAPPY), ("PublicTest", "b.png", HAPPY)])
    lines = (tmp_path / "fer2013.csv").read_text().splitlines()
    (tmp_path / "fer2013.csv").write_text("\n".join([lines[0], lines[2], lines[1]]) + "\n")
    with pytest.raises(ValueError, match=r"\(2 rows\).*\(2 rows\) do not go together"):
        ferplus.scan(tmp_path)
    (tmp_path / "fer2013.csv").write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(ValueError, match=r"\(1 rows\).*\(2 rows\) do not go together"):
        ferplus.scan(tmp_path)
    (tmp_path / "fer2013.csv").write_text("pixels,Usage\n")
    with pytest.raises(ValueError, match="must have the columns emotion,pixels,Usage, but has pixels,Usage"):
        ferplus.scan(tmp_path)


@pytest.mark.parametrize(
    ("counts", "label"),
    [
        (votes(happiness=5, neutral=4, fear=1), "happiness"),  # the single vote does not count: 5 of 9
        (votes(happiness=5, neutral=5), ""),
        (votes(happiness=1, neutral=1), ""),
        (votes(unknown=6, fear=4), ""),
        (votes(NF=6, fear=4), ""),
        (votes(), ""),
    ],
)
def test_a_class_needs_more_than_half_of_the_votes_that_count(counts, label):
    assert majority(counts)[0] == label
    assert bool(majority(counts)[1]) == (label == "")


def test_cropped_faces_fill_the_middle_and_their_border_fills_the_margin(tmp_path):
    root = fer_tables(tmp_path, [("Training", f"{i}.png", HAPPY) for i in range(3)])
    prepare(ferplus.scan(root), tmp_path / "store/ferplus", None, {"points": "cropped"})
    loaded = prepared.load(tmp_path / "store/ferplus")
    assert [np.unique(face).tolist() for face in loaded.faces] == [[0], [1], [2]]
    assert loaded.metadata["settings"] == {
        "votes": "fer2013new.csv",
        "rule": "majority",
        "pictures": "rows of fer2013.csv",
        "points": "cropped",
    }
    assert list(loaded.split) == ["train"] * 3


def test_both_drawn_forms_hold_the_same_faces(tmp_path):
    table = synthesise("ferplus", tmp_path / "csv", subjects=30, seed=4, processes=1)
    folders = synthesise("ferplus", tmp_path / "png", subjects=30, seed=4, processes=1, form="png")
    assert table.pictures == folders.pictures == 60
    by_row, by_file = ferplus.scan(table.root), ferplus.scan(folders.root)
    rows = {picture.frame: by_row.read(picture) for picture in by_row.pictures}  # the later of a name, as exported
    for picture in by_file.pictures:
        assert (by_file.read(picture)[..., 0] == rows[picture.frame]).all()
    assert len(by_file.pictures) == len({picture.frame for picture in by_row.pictures})
