import csv
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from idennet_core.datasets import casia_webface, ferplus, oulu_casia, prepared
from idennet_core.datasets.folds import fold_of
from idennet_core.datasets.preparation import from_landmarks, prepare
from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.scan import describe
from idennet_core.faces.alignment import TEMPLATE
from idennet_core.streams import generator

REAL_VOTES = Path(__file__).parents[2] / "shared/data/ferplus/fer2013new.csv"
needs_real_votes = pytest.mark.skipif(not REAL_VOTES.exists(), reason=f"no FER+ label file in {REAL_VOTES.parent}")


def picture(name, height=120, width=160, suffix=".png"):
    """An encoded picture without a face, another one for every name."""
    pixels = generator("picture", str(name)).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.imencode(suffix, cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def oulu_tree(root, subjects=10, frames=4):
    """Oulu-CASIA's layout with pictures that show nothing."""
    for subject in range(1, subjects + 1):
        for expression in oulu_casia.CLASSES:
            folder = root / f"VL/Strong/P{subject:03d}/{expression.capitalize()}"
            folder.mkdir(parents=True)
            for frame in range(frames):
                (folder / f"{frame:03d}.jpeg").write_bytes(picture((subject, expression, frame), suffix=".jpeg"))
    return root


def reasons(skipped):
    return {entry.source: entry.reason for entry in skipped}


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


# ferplus


def fer_tables(root, ballots):
    """The two tables of FER+ from (usage, name, votes); every pixel of a row is the row's number."""
    for file, header, rows in (
        (
            "fer2013.csv",
            ("emotion", "pixels", "Usage"),
            [(0, " ".join([str(i)] * 2304), b[0]) for i, b in enumerate(ballots)],
        ),
        (
            "fer2013new.csv",
            ("Usage", "Image name", *ferplus.VOTED),
            [(u, n, *votes) for u, n, votes in ballots],
        ),
    ):
        text = io.StringIO()
        csv.writer(text).writerows([header, *rows])
        (root / file).write_text(text.getvalue(), newline="")
    return root


@needs_real_votes
def test_the_majority_rule_gives_the_known_counts_of_the_real_label_file():
    kept = [
        (usage, ferplus.majority(votes)[0])
        for usage, name, votes in ferplus.read_votes(REAL_VOTES)
        if name and ferplus.majority(votes)[0]
    ]
    assert Counter(usage for usage, _ in kept) == {"Training": 25060, "PublicTest": 3199, "PrivateTest": 3153}
    train = Counter(label for usage, label in kept if usage == "Training")
    expected = {"neutral": 8740, "happiness": 7287, "surprise": 3149, "sadness": 3014, "anger": 2100}
    assert train == expected | {"disgust": 119, "fear": 532, "contempt": 119}


@needs_real_votes
def test_every_row_of_the_real_label_file_is_used_or_listed(tmp_path):
    ballots = ferplus.read_votes(REAL_VOTES)
    with (tmp_path / "fer2013.csv").open("w") as file:
        file.write("emotion,pixels,Usage\n" + "".join(f"0,0,{usage}\n" for usage, _, _ in ballots))
    (tmp_path / "fer2013new.csv").write_bytes(REAL_VOTES.read_bytes())
    scan = ferplus.scan(tmp_path)
    described = describe(scan)
    assert described["splits"] == {"train": 25060, "valid": 3199, "test": 3153}
    assert len(scan.pictures) + len(scan.skipped) == len(ballots) == 35887
    assert len({p.source for p in scan.pictures}) == len(scan.pictures)
    nameless = [entry for entry in described["skipped"] if entry["reason"] == "the picture has no name"]
    assert [entry["count"] for entry in nameless] == [173]


def test_pixels_and_votes_are_joined_by_row_even_where_names_repeat(tmp_path):
    happy, unsure = (0, 10, 0, 0, 0, 0, 0, 0, 0, 0), (4, 0, 2, 0, 2, 0, 0, 0, 0, 0)
    rows = [
        ("Training", "fer0000000.png", happy),
        ("Training", "fer0000001.png", unsure),
        ("PublicTest", "", (0,) * 9 + (10,)),
        ("PrivateTest", "fer0000000.png", (0, 0, 0, 0, 0, 0, 0, 9, 1, 0)),
        ("Training", "fer0000004.png", (0, 0, 0, 0, 0, 0, 0, 0, 10, 0)),
        ("Training", "fer0000005.png", (0, 0, 0, 0, 0, 0, 0, 1, 1, 8)),
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


def test_tables_that_do_not_go_together_are_refused(tmp_path):
    rows = [("Training", "a.png", (10, *(0,) * 9)), ("PublicTest", "b.png", (10, *(0,) * 9))]
    fer_tables(tmp_path, rows)
    lines = (tmp_path / "fer2013.csv").read_text().splitlines()
    (tmp_path / "fer2013.csv").write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(ValueError, match=r"\(1 rows\).*\(2 rows\) do not go together"):
        ferplus.scan(tmp_path)
    (tmp_path / "fer2013new.csv").write_text("name,votes\n")
    with pytest.raises(ValueError, match=r"must have the columns Usage,Image name,neutral.*but has name,votes"):
        ferplus.scan(tmp_path)


# casia-webface


def test_webface_ids_are_sparse_numbers_in_order(tmp_path):
    for name in ("0000102/010.jpg", "0000102/9.jpg", "0000045/001.jpg", "0000045/notes.txt", "lists/all.txt"):
        (tmp_path / "CASIA-WebFace" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "CASIA-WebFace" / name).write_bytes(b"")
    scan = casia_webface.scan(tmp_path)
    assert [(p.subject, p.frame, p.label) for p in scan.pictures] == [
        ("0000045", "001", ""),
        ("0000102", "9", ""),
        ("0000102", "010", ""),
    ]
    assert reasons(scan.skipped) == {
        "CASIA-WebFace/0000045/notes.txt": "not a picture (.jpeg, .jpg or .png)",
        "CASIA-WebFace/lists": "not a person's folder (a number)",
    }


# prepared sets


def small_set(directory, value=0, source="a", **changes):
    rows = [Face(s, "anger", f"{s}/anger", "000", "", f"{source}/{s}") for s in ("P002", "P001")]
    faces = np.stack([np.full((80, 80), value + i, np.uint8) for i in range(2)])
    arguments = {"name": "oulu-casia", "classes": ("anger",), "synthetic": True, "faces": faces, "rows": rows}
    arguments |= {"skipped": [Skipped("x", "broken")], "settings": {"points": "cropped"}} | changes
    return prepared.save(directory, **arguments)


def test_a_set_is_read_as_it_was_written_sorted_and_memory_mapped(tmp_path):
    data_id = small_set(tmp_path / "data/oulu-casia")
    loaded = prepared.load(tmp_path / "data/oulu-casia")
    assert loaded.data_id == data_id == loaded.metadata["data_id"]
    assert (loaded.name, loaded.synthetic, loaded.classes) == ("oulu-casia", True, ("anger",))
    assert list(loaded.subject) == ["P001", "P002"]
    assert list(loaded.source) == ["a/P001", "a/P002"]
    assert [int(face.max()) for face in loaded.faces] == [1, 0]
    assert isinstance(loaded.faces, np.memmap)
    assert loaded.metadata["skipped"] == [{"reason": "broken", "count": 1, "sources": ["x"]}]
    assert prepared.read_metadata(tmp_path / "data/oulu-casia")["num_faces"] == 2


def test_the_data_id_is_of_faces_and_index_not_of_the_place_they_came_from(tmp_path):
    ids = [
        small_set(tmp_path / "a"),
        small_set(tmp_path / "b", source="elsewhere", settings={}, skipped=[]),
        small_set(tmp_path / "c", value=1),
        small_set(tmp_path / "d", classes=("anger", "fear")),
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_different_set_is_kept_beside_and_the_same_one_left_alone(tmp_path):
    place = tmp_path / "oulu-casia"
    first = small_set(place)
    written = (place / "faces.npy").stat().st_mtime_ns
    assert small_set(place, settings={"points": "landmarks"}) == first
    assert (place / "faces.npy").stat().st_mtime_ns == written
    assert prepared.read_metadata(place)["settings"] == {"points": "landmarks"}
    second = small_set(place, value=9)
    assert small_set(place) == first
    assert small_set(place, value=9) == second
    kept = {path.name: prepared.load(path).data_id for path in tmp_path.iterdir()}
    assert kept == {
        "oulu-casia": second,
        f"oulu-casia.{first[:8]}": first,
        f"oulu-casia.{second[:8]}": second,
        f"oulu-casia.{first[:8]}.1": first,
    }


def test_a_run_killed_while_it_writes_leaves_no_set_and_takes_none_away(tmp_path):
    code = (
        "import resource, signal, sys; from pathlib import Path; import tests.test_datasets as t;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL);"  # the kernel ends the process in mid-write
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));"
        "t.small_set(Path(sys.argv[1]), value=5)"
    )
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}

    def killed(place):
        run = subprocess.run([sys.executable, "-c", code, str(place)], cwd=root, env=environment, check=False)
        assert run.returncode == -signal.SIGXFSZ

    killed(tmp_path / "new")
    assert any(tmp_path.iterdir())  # it was killed in the middle of a file
    with pytest.raises(FileNotFoundError, match="run `idenctl data prepare`"):
        prepared.load(tmp_path / "new")
    old = small_set(tmp_path / "old")
    killed(tmp_path / "old")
    assert prepared.load(tmp_path / "old").data_id == old
    assert small_set(tmp_path / "new", value=5) == prepared.load(tmp_path / "new").data_id


def test_what_is_no_prepared_set_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(ValueError, match="is not a prepared set"):
        small_set(tmp_path / "notes")
    small_set(tmp_path / "damaged")
    (tmp_path / "damaged/faces.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is damaged .*: move it away and prepare again"):
        prepared.load(tmp_path / "damaged")
    (tmp_path / "damaged/metadata.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="has format 99, this version reads 1: upgrade"):
        prepared.load(tmp_path / "damaged")
    with pytest.raises(ValueError, match="at least one face"):
        small_set(tmp_path / "empty", faces=np.empty((0, 80, 80), np.uint8), rows=[])


# preparation


def test_each_picture_that_cannot_be_used_is_listed_and_the_others_are_prepared(tmp_path):
    scan = oulu_casia.scan(oulu_tree(tmp_path / "root", subjects=1, frames=3))
    landmarks = {p.source: TEMPLATE for p in scan.pictures}
    empty, cut, gone, absent, flat = (scan.pictures[i] for i in (0, 4, 8, 12, 16))
    files = {p.source: tmp_path / "root" / p.source for p in scan.pictures}
    files[empty.source].write_bytes(b"")
    files[cut.source].write_bytes(files[cut.source].read_bytes()[:200])
    del landmarks[absent.source]
    landmarks[flat.source] = np.zeros((5, 2))
    files[gone.source].unlink()
    files[gone.source].mkdir()  # a folder with a picture's name
    seen = []
    result = prepare(
        scan,
        tmp_path / "store/oulu-casia",
        from_landmarks(landmarks),
        {"points": "landmarks"},
        progress=lambda *step: seen.append(step),
    )
    listed = {source: s["reason"] for s in result.metadata["skipped"] for source in s["sources"]}
    assert {s: r for s, r in listed.items() if s.endswith("jpeg")} == {
        empty.source: "not a readable picture: empty, cut off or of another format",
        cut.source: "not a readable picture: empty, cut off or of another format",
        gone.source: "cannot be read: Is a directory",
        absent.source: "no row in the landmarks file",
        flat.source: "the five points coincide or are not finite",
    }
    assert result.metadata["num_faces"] == 18 - 5
    assert seen == [(i, 18) for i in range(1, 19)]


def test_preparing_again_reads_no_picture_until_a_file_or_a_setting_changes(tmp_path):
    root = oulu_tree(tmp_path / "root", subjects=1, frames=3)
    place = tmp_path / "store/oulu-casia"

    def unread(picture):
        raise AssertionError("decoded again")

    first = prepare(oulu_casia.scan(root), place, None, {"points": "cropped"})
    again = prepare(replace(oulu_casia.scan(root), read=unread), place, None, {"points": "cropped"})
    assert (first.fresh, again.fresh) == (True, False)
    assert again.metadata == first.metadata
    os.utime(root / "VL/Strong/P001/Anger/000.jpeg", ns=(1, 1))
    touched = prepare(oulu_casia.scan(root), place, None, {"points": "cropped"})
    assert touched.fresh
    assert touched.metadata["data_id"] == first.metadata["data_id"]
    assert not prepare(oulu_casia.scan(root), place, None, {"points": "cropped"}).fresh
    (root / "VL/Strong/P001/Anger/000.jpeg").write_bytes(picture("new"))
    changed = prepare(oulu_casia.scan(root), place, None, {"points": "cropped"})
    assert changed.metadata["data_id"] != first.metadata["data_id"]


def test_a_set_without_any_usable_picture_is_refused_and_nothing_is_stored(tmp_path):
    scan = oulu_casia.scan(oulu_tree(tmp_path / "root", subjects=1, frames=3))
    with pytest.raises(ValueError, match=r"none of the 18 pictures of oulu-casia .* no row in the landmarks file"):
        prepare(
            replace(scan, skipped=[]),
            tmp_path / "store/oulu-casia",
            from_landmarks({}),
            {"points": "landmarks"},
        )
    assert list((tmp_path / "store").iterdir()) == []


def test_cropped_faces_fill_the_middle_and_their_border_fills_the_margin(tmp_path):
    rows = [("Training", "a.png", (10, *(0,) * 9))] * 3
    result = prepare(ferplus.scan(fer_tables(tmp_path, rows)), tmp_path / "store/ferplus", None, {"points": "cropped"})
    loaded = prepared.load(tmp_path / "store/ferplus")
    assert [np.unique(face).tolist() for face in loaded.faces] == [[0], [1], [2]]
    assert result.metadata["settings"] == {"votes": "fer2013new.csv", "rule": "majority", "points": "cropped"}
    assert list(loaded.split) == ["train"] * 3
