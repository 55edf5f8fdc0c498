"""CASIA-WebFace as folders and as RecordIO; records are written and read by the tests' own few lines."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts import picture, reasons, record, write_records

from idennet_core.datasets import casia_webface, prepared
from idennet_core.datasets.preparation import from_landmarks, prepare
from idennet_core.datasets.scan import describe
from idennet_core.datasets.synthetic.sets import synthesise
from orchestrator.cli.data import read_landmarks

FACE = picture("a face", 112, 112, ".jpg")
NO_RECORD = "no record there: it must start with the magic 0xced7230a"
CUT_OFF = "the record is cut off"


def faces(root, number=4, end=None):
    """A RecordIO set of some pictures of identities 7, 7, 9, 9, …, with the metadata before and behind them."""
    images = [record(7 + i // 2 * 2, picture(i, 112, 112, ".jpg"), i + 1) for i in range(number)]
    identities = [record(0, labels=(1, 3)), record(0, labels=(3, 5))]
    end = number + 1 if end is None else end
    return write_records(root, [record(0, labels=(end, end + 2)), *images, *identities])


def records_of(root):
    """key -> (first label, encoded picture): a reader of whole records that goes by the index file alone."""
    content = (root / "train.rec").read_bytes()
    found = {}
    for line in (root / "train.idx").read_text().splitlines():
        key, offset = map(int, line.split("\t"))
        magic, length = struct.unpack_from("<II", content, offset)
        assert (magic, length >> 29) == (0xCED7230A, 0)
        flag, label, _, _ = struct.unpack_from("<IfQQ", content, offset + 8)
        labels = struct.unpack_from(f"<{flag}f", content, offset + 32) or (label,)
        found[key] = labels, content[offset + 32 + 4 * flag : offset + 8 + length]
    return found


# folders


def test_ids_are_sparse_numbers_in_order_below_any_prefix(tmp_path):
    for name in ("0000102/010.jpg", "0000102/9.jpg", "0000045/001.jpg", "0000045/notes.txt", "lists/all.txt"):
        (tmp_path / "faces/CASIA-maxpy-clean" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces/CASIA-maxpy-clean" / name).write_bytes(b"")
    scan = casia_webface.scan(tmp_path)
    assert [(p.subject, p.frame, p.label) for p in scan.pictures] == [
        ("0000045", "001", ""),
        ("0000102", "9", ""),
        ("0000102", "010", ""),
    ]
    assert reasons(scan.skipped) == {
        "faces/CASIA-maxpy-clean/0000045/notes.txt": "not a picture (.jpeg, .jpg or .png)",
        "faces/CASIA-maxpy-clean/lists": "not a person's folder (a number)",
    }


def test_a_root_whose_own_name_is_a_number_is_no_person(tmp_path):
    (tmp_path / "2024/0000045").mkdir(parents=True)
    (tmp_path / "2024/0000045/001.jpg").touch()
    assert [p.subject for p in casia_webface.scan(tmp_path / "2024").pictures] == ["0000045"]


# RecordIO


def test_no_file_stays_open_when_records_were_found_or_read(tmp_path):
    faces(tmp_path)
    scan = casia_webface.scan(tmp_path)
    assert scan.read(scan.pictures[0]).shape == (112, 112, 3)
    opened = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    assert len(opened) > 3
    assert [path for path in opened if tmp_path in path.parents] == []


def test_record_0_and_those_behind_the_pictures_are_no_pictures(tmp_path):
    faces(tmp_path / "faces_webface_112x112")
    scan = casia_webface.scan(tmp_path)
    assert [(p.subject, p.frame, p.source) for p in scan.pictures] == [
        ("0000007", "0000001", "faces_webface_112x112/train.rec:1"),
        ("0000007", "0000002", "faces_webface_112x112/train.rec:2"),
        ("0000009", "0000003", "faces_webface_112x112/train.rec:3"),
        ("0000009", "0000004", "faces_webface_112x112/train.rec:4"),
    ]
    assert (scan.skipped, scan.cropped, scan.protocol) == ([], True, {"form": "RecordIO"})
    for i, found in enumerate(scan.pictures):
        expected = cv2.imdecode(np.frombuffer(picture(i, 112, 112, ".jpg"), np.uint8), cv2.IMREAD_COLOR)
        assert (scan.read(found) == expected).all()


def test_pictures_are_counted_by_record_0_not_by_the_index(tmp_path):
    faces(tmp_path, number=4, end=3)
    assert [p.frame for p in casia_webface.scan(tmp_path).pictures] == ["0000001", "0000002"]


def test_labels_behind_the_header_come_before_the_picture(tmp_path):
    write_records(tmp_path, [record(0, labels=(2, 3)), record(5, FACE, labels=(6, 1, 2, 3))])
    scan = casia_webface.scan(tmp_path)
    assert [p.subject for p in scan.pictures] == ["0000006"]
    assert scan.read(scan.pictures[0]).shape == (112, 112, 3)


@pytest.mark.parametrize("cuts", [1, 2, 3])
def test_a_picture_that_holds_the_magic_is_put_together_again(cuts, tmp_path):
    """A JPEG comment of magics, so placed that the format cuts the record at each."""
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 4 + 8 * cuts) + b"----" + struct.pack("<II", 0xCED7230A, 0) * cuts
    encoded = FACE[:2] + b"\xff\xfe\x00\x04--" + comment + FACE[2:]
    write_records(tmp_path, [record(0, labels=(2, 3)), record(5, encoded)])
    content = (tmp_path / "train.rec").read_bytes()
    assert content.count(struct.pack("<I", 0xCED7230A)) == 2 + cuts  # one a part: those of the comment are left out
    scan = casia_webface.scan(tmp_path)
    assert (scan.read(scan.pictures[0]) == cv2.imdecode(np.frombuffer(FACE, np.uint8), cv2.IMREAD_COLOR)).all()


def test_each_damaged_record_is_named_and_the_others_are_prepared(tmp_path):
    root = tmp_path / "set"
    offsets = faces(root, number=9)
    content = bytearray((root / "train.rec").read_bytes())
    content[offsets[1]] ^= 1  # another magic
    struct.pack_into("<I", content, offsets[2] + 4, (1 << 29) - 1)  # longer than the file
    struct.pack_into("<I", content, offsets[3] + 4, 3)  # too short for a header
    struct.pack_into("<I", content, offsets[4] + 8, 1 << 31)  # more labels than the record holds
    struct.pack_into("<f", content, offsets[5] + 12, float("nan"))
    struct.pack_into("<I", content, offsets[6] + 4, 2 << 29 | 100)  # begins in the middle
    content[offsets[7] + 32 : offsets[7] + 432] = bytes(400)
    (root / "train.rec").write_bytes(content)
    index = (root / "train.idx").read_text().replace(f"9\t{offsets[9]}\n", f"9\t{10**30}\n")
    (root / "train.idx").write_text(f"{index}8\t0\n-1\t0\nno\n")
    result = prepare(casia_webface.scan(root), tmp_path / "store/casia-webface", None, {"points": "cropped"})
    listed = {source: s["reason"] for s in result.metadata["skipped"] for source in s["sources"]}
    assert listed == {
        "train.rec:1": NO_RECORD,
        "train.rec:2": CUT_OFF,
        "train.rec:3": "the record is too short for a header",
        "train.rec:4": "the record is too short for its labels",
        "train.rec:5": "the record's label is not an identity's number",
        "train.rec:6": "the record's parts do not go together",
        "train.rec:7": "not a readable picture: empty, cut off or of another format",
        "train.rec:8": "the index names the record twice: the first place is taken",
        "train.rec:9": CUT_OFF,
        "train.idx:14": "not a key, a tab and an offset",
        "train.idx:15": "not a key, a tab and an offset",
    }
    assert list(prepared.load(tmp_path / "store/casia-webface").frame) == ["0000008"]


def test_a_file_that_ends_early_keeps_what_is_whole(tmp_path):
    offsets = faces(tmp_path)
    content = (tmp_path / "train.rec").read_bytes()
    (tmp_path / "train.rec").write_bytes(content[: offsets[3] + 100])
    scan = casia_webface.scan(tmp_path)
    assert [p.frame for p in scan.pictures] == ["0000001", "0000002"]
    assert reasons(scan.skipped) == {"train.rec:3": CUT_OFF, "train.rec:4": CUT_OFF}


def test_without_record_0_every_record_with_a_picture_is_taken(tmp_path):
    faces(tmp_path)
    content = bytearray((tmp_path / "train.rec").read_bytes())
    content[0] ^= 1
    (tmp_path / "train.rec").write_bytes(content)
    scan = casia_webface.scan(tmp_path)
    assert [p.frame for p in scan.pictures] == [f"{key:07d}" for key in (1, 2, 3, 4)]
    assert reasons(scan.skipped) == {"train.rec:0": f"{NO_RECORD}, so every record that holds a picture is taken"}


def test_a_picture_in_record_0_says_nothing_of_how_many_there_are(tmp_path):
    write_records(tmp_path, [record(i // 2, picture(i, 112, 112, ".jpg"), i) for i in range(6)])
    scan = casia_webface.scan(tmp_path)
    assert [(p.subject, p.frame) for p in scan.pictures] == [(f"{i // 2:07d}", f"{i:07d}") for i in range(6)]
    assert reasons(scan.skipped) == {
        "train.rec:0": "record 0 holds a picture, so every record that holds a picture is taken"
    }


def test_a_file_of_another_format_leaves_nothing_and_says_why(tmp_path):
    faces(tmp_path / "set")
    size = (tmp_path / "set/train.rec").stat().st_size
    (tmp_path / "set/train.rec").write_bytes(b"PK" * (size // 2))
    scan = casia_webface.scan(tmp_path / "set")
    assert scan.pictures == []
    with pytest.raises(ValueError, match=r"none of the 0 pictures .* no record there: it must start with the magic"):
        prepare(scan, tmp_path / "store/casia-webface", None, {"points": "cropped"})


def test_faces_of_another_size_are_not_taken_for_aligned_ones(tmp_path):
    root = tmp_path / "set"
    images = [record(1, FACE), record(1, picture("tall", 112, 96, ".jpg"))]
    write_records(root, [record(0, labels=(3, 4)), *images])
    result = prepare(casia_webface.scan(root), tmp_path / "store/casia-webface", None, {"points": "cropped"})
    [skipped] = result.metadata["skipped"]
    assert skipped["sources"] == ["train.rec:2"]
    assert skipped["reason"] == "an aligned face has 112x112 pixels, but this has 96x112"


def test_a_root_with_both_forms_or_without_the_index_is_refused(tmp_path):
    faces(tmp_path)
    (tmp_path / "0000045").mkdir()
    with pytest.raises(ValueError, match=r"holds train\.rec and folders of people: keep one"):
        casia_webface.scan(tmp_path)
    (tmp_path / "0000045").rmdir()
    (tmp_path / "train.idx").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds train\.rec without train\.idx: put"):
        casia_webface.scan(tmp_path)


# the drawn set


def test_the_drawn_records_are_the_drawn_pictures_cut_out_on_the_template(tmp_path):
    """Read by the test's own reader, and held against the folders' pictures and their true points."""
    people = synthesise("casia-webface", tmp_path / "folders", subjects=3, seed=2, processes=1)
    drawn = synthesise("casia-webface", tmp_path / "records", subjects=3, seed=2, processes=1, form="recordio")
    found = records_of(drawn.root)
    end = int(found[0][0][0])
    assert end - 1 == drawn.pictures == people.pictures == 75
    assert (drawn.root / "property").read_text() == "3,112,112"
    ranges = [tuple(map(int, found[key][0])) for key in range(end, int(found[0][0][1]))]
    assert ranges == [(1, 26), (26, 51), (51, 76)]
    for identity, (first, last) in enumerate(ranges):
        assert {found[key][0] for key in range(first, last)} == {(float(identity),)}

    template = np.array(
        [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
    )
    rows = [line.split(",") for line in (people.root / "landmarks.csv").read_text().splitlines()[1:]]
    for key, (source, *values) in list(enumerate(rows, start=1))[::10]:
        x, y = np.array(values, float).reshape(5, 2).T
        one, zero = np.ones(5), np.zeros(5)
        system = np.block([[np.stack([x, -y, one, zero], 1)], [np.stack([y, x, zero, one], 1)]])
        a, b, right, down = np.linalg.lstsq(system, template.T.ravel())[0]
        matrix = np.array([(a, -b, right), (b, a, down)])
        whole = cv2.imread(str(people.root / source), cv2.IMREAD_GRAYSCALE)
        expected = cv2.warpAffine(whole, matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE).astype(float)
        face = cv2.imdecode(np.frombuffer(found[key][1], np.uint8), cv2.IMREAD_GRAYSCALE).astype(float)
        assert np.abs(expected - face).mean() < 3  # JPEG
    described = describe(casia_webface.scan(drawn.root))
    assert (described["synthetic"], described["subjects"], described["frames"]) == (True, 3, 75)


def test_an_aligned_face_and_the_same_face_aligned_here_lie_alike(tmp_path):
    """RecordIO's faces and those that are aligned from whole pictures must have one scale and one place."""
    folders = synthesise("casia-webface", tmp_path / "folders", subjects=2, seed=2, processes=1)
    records = synthesise("casia-webface", tmp_path / "records", subjects=2, seed=2, processes=1, form="recordio")
    locate = from_landmarks(read_landmarks(folders.root / "landmarks.csv"))
    prepare(casia_webface.scan(folders.root), tmp_path / "a", locate, {"points": "landmarks"})
    prepare(casia_webface.scan(records.root), tmp_path / "b", None, {"points": "cropped"})
    here, there = (prepared.load(tmp_path / name).faces[:, 14:66, 14:66].astype(np.float32) for name in "ab")
    for mine, theirs in zip(here, there, strict=True):
        (right, down), response = cv2.phaseCorrelate(mine, theirs, cv2.createHanningWindow((52, 52), cv2.CV_32F))
        assert np.hypot(right, down) < 0.5, (right, down, response)
        assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.95
