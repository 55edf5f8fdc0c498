"""CK+: the loader against trees made by hand, and the drawn set against a reader of its own."""

import json
import struct
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import idenctl

from idennet_core import config
from idennet_core.datasets import ck_plus, prepared
from idennet_core.datasets.preparation import from_landmarks, prepare
from idennet_core.datasets.prepared import Face
from idennet_core.datasets.scan import describe
from idennet_core.datasets.synthetic.ck_plus import labels_of
from idennet_core.datasets.synthetic.sets import synthesise
from idennet_core.faces.alignment import TEMPLATE
from orchestrator.cli.data import read_landmarks

MODEL = Path(__file__).parents[2] / "shared/models/yunet_n_dynamic.onnx"
needs_model = pytest.mark.skipif(not MODEL.exists(), reason=f"no YuNet model in {MODEL.parent}")
# The published codes, numbers of labelled sequences, and sizes of the folds subjects[i::10].
CODES = dict(enumerate(("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"), start=1))
PUBLISHED = dict(zip(CODES.values(), (45, 18, 59, 25, 69, 28, 83), strict=True))
FOLDS = [33, 39, 40, 35, 30, 37, 29, 29, 33, 22]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "ck+"
    return synthesise("ck+", root, subjects=4, seed=4, processes=1)


def sequence(root, name, label=None, frames=(1, 2, 3, 5), labelled="Emotion"):
    """A sequence of pictures that hold nothing, and its folder of labels, empty without a label."""
    subject, number = name.split("/")
    pictures, labels = root / "cohn-kanade-images" / name, root / labelled / name
    pictures.mkdir(parents=True)
    labels.mkdir(parents=True)
    for frame in frames:
        (pictures / f"{subject}_{number}_{frame:08d}.png").write_bytes(b"")
    if label is not None:
        (labels / f"{subject}_{number}_{frames[-1]:08d}_emotion.txt").write_text(label)
    return pictures, labels


def reasons(scan):
    return {entry.source: entry.reason for entry in scan.skipped}


def png_header(path):
    """Width, height and whether it has colour, from the file's first bytes."""
    width, height, depth, colour = struct.unpack(">IIBB", path.read_bytes()[16:26])
    assert depth == 8
    return width, height, colour == 2


# loader


def test_a_tree_of_the_published_size_has_the_published_counts_and_folds(tmp_path):
    total = 0
    for person in range(123):
        labels = labels_of(person)
        assert len(set(labels)) == len(labels)
        for number, label in enumerate(labels, start=1):
            code = next(code for code, name in CODES.items() if name == label)
            sequence(tmp_path, f"S{5 + 3 * person:03d}/{number:03d}", f"   {code:.7e}\n")
        without = 593 - 327 - 122 * 2 if person == 122 else 2
        for number in range(len(labels) + 1, len(labels) + without + 1):
            sequence(tmp_path, f"S{5 + 3 * person:03d}/{number:03d}")
        total += len(labels) + without
    assert total == 593
    scan = ck_plus.scan(tmp_path)
    shown = describe(scan)
    assert (shown["subjects"], shown["sequences"], shown["frames"]) == (118, 327, 981)
    assert shown["classes"] == {label: 3 * number for label, number in PUBLISHED.items()}
    assert [fold["sequences"] for fold in shown["folds"]] == FOLDS
    last = sorted({picture.subject for picture in scan.pictures})[9::10]
    assert {picture.label for picture in scan.pictures if picture.subject in last} == set(PUBLISHED) - {"fear"}
    assert [(entry["reason"], entry["count"]) for entry in shown["skipped"]] == [("no emotion label", 266)]
    assert shown["warnings"] == []  # the published set has nothing unusual


def test_two_spellings_of_a_subject_are_one_person_and_a_sequence_in_both_counts_once(tmp_path):
    sequence(tmp_path, "S005/001", "3")
    sequence(tmp_path, "s005/001", None)  # another label, or none, must not take the first one's place
    sequence(tmp_path, "s005/002", "7")
    sequence(tmp_path, "S010/001", "1")
    images, labels = tmp_path / "cohn-kanade-images", tmp_path / "Emotion"
    (images / "S010").rename(images / "s010")  # the copy of the pictures in small letters, that of the labels not
    scan = ck_plus.scan(tmp_path)
    found = {(p.subject, p.sequence, p.label) for p in scan.pictures}
    assert found == {
        ("S005", "S005/001", "disgust"), ("S005", "S005/002", "surprise"), ("S010", "S010/001", "anger"),
    }  # fmt: skip
    assert describe(scan)["subjects"] == 2
    twice = "the same sequence as in S005, which counts"
    assert reasons(scan) == {
        f"{folder.relative_to(tmp_path)}/s005/001": twice for folder in (images, labels)
    }  # fmt: skip
    assert {p.source.split("/")[1] for p in scan.pictures if p.sequence == "S005/001"} == {"S005"}


def test_a_label_that_an_editor_put_a_byte_order_mark_before_is_read(tmp_path):
    sequence(tmp_path, "S005/001", "\ufeff   3.0000000e+00\r\n")
    assert {p.label for p in ck_plus.scan(tmp_path).pictures} == {"disgust"}


def test_every_trap_of_the_layout_is_listed_and_the_rest_is_used(tmp_path):
    root = tmp_path / "CK+"
    images, labels = root / "cohn-kanade-images", root / "Emotion_Labels"
    padded = sequence(
        root, "S010/001", "   3.0000000e+00\n", frames=(1, 2, 9, 11, 40), labelled="Emotion_Labels/Emotion"
    )
    wrong = [None, "   0.0000000e+00\n", "8.0", "-1", "2.5", "nan", "happy", ""]
    for number, label in enumerate(wrong, start=2):
        sequence(root, f"S010/{number:03d}", label, labelled="Emotion_Labels/Emotion")
    two = sequence(root, "S010/010", "1", labelled="Emotion_Labels/Emotion")[1]
    (two / "S010_010_00000002_emotion.txt").write_text("2")
    sequence(root, "S010/011", "1", frames=(1, 2), labelled="Emotion_Labels/Emotion")
    other = sequence(root, "S011/001", "7", labelled="Emotion_Labels/Emotion")
    (other[0] / "S011_001_00000006.png").write_bytes(b"")
    (other[0] / "._S011_001_00000007.png").write_bytes(b"")
    (labels / "Emotion/S099/001").mkdir(parents=True)
    for place in (images, images / "S010", padded[1], labels / "Emotion/S010/002"):
        (place / ".DS_Store").write_bytes(b"")

    scan = ck_plus.scan(tmp_path)
    pictures, texts = "CK+/cohn-kanade-images", "CK+/Emotion_Labels/Emotion"
    assert reasons(scan) == {
        f"{pictures}/.DS_Store": "not a subject's folder (S005, S010, …)",
        f"{pictures}/S010/.DS_Store": "not a sequence's folder (001, 002, …)",
        f"{texts}/S010/001/.DS_Store": "not a label (…_emotion.txt)",
        f"{texts}/S010/002/.DS_Store": "not a label (…_emotion.txt)",
        f"{pictures}/S010/002": "no emotion label",
        f"{texts}/S010/003/S010_003_00000005_emotion.txt": "labelled neutral (code 0), none of the seven expressions",
        f"{texts}/S010/004/S010_004_00000005_emotion.txt": "code 8 is none of the seven expressions (1 to 7)",
        f"{texts}/S010/005/S010_005_00000005_emotion.txt": "code -1 is none of the seven expressions (1 to 7)",
        f"{texts}/S010/006/S010_006_00000005_emotion.txt": "code 2.5 is none of the seven expressions (1 to 7)",
        f"{texts}/S010/007/S010_007_00000005_emotion.txt": "code nan is none of the seven expressions (1 to 7)",
        f"{texts}/S010/008/S010_008_00000005_emotion.txt": "the label must be a number, but is 'happy'",
        f"{texts}/S010/009/S010_009_00000005_emotion.txt": "the label file is empty",
        f"{pictures}/S010/010": "2 emotion labels, one is needed",
        f"{pictures}/S010/011": "2 frames, the last 3 are needed",
        f"{pictures}/S011/001/._S011_001_00000007.png": "not a picture (.jpeg, .jpg or .png)",
        f"{texts}/S011/001/S011_001_00000005_emotion.txt": (
            "not named after the last frame, S011_001_00000006.png: the last 3 are used"
        ),
        f"{texts}/S099/001": "no pictures of this sequence",
    }
    assert [(p.subject, p.label, p.sequence, p.frame) for p in scan.pictures] == [
        ("S010", "disgust", "S010/001", "00000009"),
        ("S010", "disgust", "S010/001", "00000011"),
        ("S010", "disgust", "S010/001", "00000040"),
        ("S011", "surprise", "S011/001", "00000003"),
        ("S011", "surprise", "S011/001", "00000005"),
        ("S011", "surprise", "S011/001", "00000006"),
    ]
    assert scan.pictures[0] == Face(
        "S010", "disgust", "S010/001", "00000009", "", f"{pictures}/S010/001/S010_001_00000009.png"
    )
    assert scan.warnings == (
        "2 labelled sequences of 2 people, 327 of 118 were published: see what is skipped, or complete the copy",
    )


@pytest.mark.parametrize("wrapped", ["", "extended-cohn-kanade-images", "a/b/c"])
def test_the_two_trees_may_lie_in_wrappers_of_their_own(tmp_path, wrapped):
    sequence(tmp_path, "S005/001", "1")
    (tmp_path / wrapped / "x").mkdir(parents=True)
    (tmp_path / "cohn-kanade-images").rename(tmp_path / wrapped / "x/Cohn-Kanade-Images")
    (tmp_path / "Emotion").rename(tmp_path / "x-labels")
    (tmp_path / "Emotion").mkdir()
    (tmp_path / "x-labels").rename(tmp_path / "Emotion/Emotion")
    assert len(ck_plus.scan(tmp_path).pictures) == 3


def test_another_layout_is_refused_with_what_was_sought_and_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ck_plus.scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is empty"):
        ck_plus.scan(tmp_path)
    (tmp_path / "holiday.zip").write_bytes(b"")
    run = idenctl("data", "show", "ck+", "--root", tmp_path)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert "looked for cohn-kanade-images/S005 and Emotion/S005 below it" in run.stderr
    assert "found holiday.zip" in run.stderr
    sequence(tmp_path, "S005/001", "1")
    (tmp_path / "Emotion").rename(tmp_path / "Labels")
    with pytest.raises(ValueError, match=r"there is no Emotion; found Labels, cohn-kanade-images, holiday\.zip"):
        ck_plus.scan(tmp_path)
    for copy in ("a", "b"):
        sequence(tmp_path / copy, "S005/001", "1")
    with pytest.raises(ValueError, match="holds Emotion 2 times"):
        ck_plus.scan(tmp_path)


def test_a_set_in_which_nothing_is_usable_is_refused(tmp_path):
    for tree in ("cohn-kanade-images", "Emotion"):
        (tmp_path / tree / "S005").mkdir(parents=True)
    run = idenctl("data", "show", "ck+", "--root", tmp_path)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "holds nothing usable of ck+" in run.stderr
    assert "no sequence in it" in run.stderr
    sequence(tmp_path, "S005/001")
    sequence(tmp_path, "S005/002", "0")
    run = idenctl("data", "show", "ck+", "--root", tmp_path, "--json")
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert "holds nothing usable of ck+: 2 skipped, the first, cohn-kanade-images/S005/001: no emotion" in run.stderr


def test_broken_pictures_are_listed_and_a_colour_picture_gives_the_same_face_as_a_grey_one(drawn, tmp_path):
    source = next(iter(sorted(drawn.root.rglob("*.png"))))
    grey = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
    folder, _ = sequence(tmp_path, "S005/001", "5", frames=(1, 2, 3))
    cut, other, third = sorted(folder.iterdir())
    cv2.imwrite(str(other), grey)
    cv2.imwrite(str(third), cv2.merge([grey] * 3))
    assert [png_header(path)[2] for path in (other, third)] == [False, True]
    cut.write_bytes(other.read_bytes()[:200])
    sequence(tmp_path, "S005/002", "7", frames=(1, 2, 3))  # zero-byte pictures
    scan = ck_plus.scan(tmp_path)
    points = from_landmarks({p.source: 4 * TEMPLATE for p in scan.pictures})
    result = prepare(scan, tmp_path / "store/data/ck+", points, {"points": "landmarks"})
    unreadable = [
        path.relative_to(tmp_path).as_posix() for path in sorted((tmp_path / "cohn-kanade-images").rglob("*.png"))
    ]
    unreadable = [source for source in unreadable if "/002/" in source or source.endswith(cut.name)]
    assert result.metadata["skipped"] == [
        {
            "reason": "not a readable picture: empty, cut off or of another format",
            "count": 4,
            "sources": unreadable,
        }
    ]
    faces = prepared.load(tmp_path / "store/data/ck+").faces
    assert faces.shape == (2, 80, 80)
    assert (faces[0] == faces[1]).all()
    assert faces[0].std() > 10


# drawn set


def test_the_drawn_layout_is_that_of_the_real_set_with_its_traps(drawn):
    images = drawn.root / "extended-cohn-kanade-images/cohn-kanade-images"
    labels = drawn.root / "Emotion_labels/Emotion"
    sequences = sorted(images.glob("S[0-9][0-9][0-9]/[0-9][0-9][0-9]"))
    assert [p.relative_to(images) for p in sequences] == [p.relative_to(labels) for p in sorted(labels.glob("S*/*"))]
    assert len({path.parent for path in sequences}) == 4
    kinds, gaps, labelled = set(), set(), Counter()
    for folder in sequences:
        stems = sorted(path.stem for path in folder.iterdir())
        assert all(stem[:9] == f"{folder.parent.name}_{folder.name}_" and len(stem) == 17 for stem in stems)
        gaps |= set(np.diff([int(stem[9:]) for stem in stems]).tolist())
        kinds |= {png_header(path) for path in folder.iterdir()}
        texts = [p for p in (labels / folder.relative_to(images)).iterdir() if p.name != ".DS_Store"]
        if texts:
            (text,) = texts
            assert text.name == f"{stems[-1]}_emotion.txt"
            assert text.read_text()[:3] == "   "  # padded, and written as a float
            assert "e+00" in text.read_text()
            labelled[CODES[int(float(text.read_text()))]] += 1
        assert len(stems) >= (5 if texts else 4)
    assert gaps == {1, 2}
    assert {(width, colour) for width, _, colour in kinds} == {(640, True), (640, False)}
    assert {height for _, height, _ in kinds} == {480, 490}
    assert 0 < labelled.total() < len(sequences)
    assert any(labels.rglob(".DS_Store"))


def test_the_loader_finds_in_the_drawn_set_what_another_reader_finds(drawn):
    expected = set()
    for text in drawn.root.rglob("*_emotion.txt"):
        subject, number, _, _ = text.name.split("_")
        (folder,) = drawn.root.glob(f"*/*/{subject}/{number}/*_00000001.png")
        tail = sorted(path.name for path in folder.parent.iterdir())[-3:]
        expected |= {(subject, CODES[int(float(text.read_text()))], f"{subject}/{number}", name) for name in tail}
    scan = ck_plus.scan(drawn.root)
    assert {(p.subject, p.label, p.sequence, Path(p.source).name) for p in scan.pictures} == expected
    assert len(scan.pictures) == len(expected)
    assert scan.synthetic
    assert not scan.warnings
    points = read_landmarks(drawn.root / "landmarks.csv")
    assert set(points) == {path.relative_to(drawn.root).as_posix() for path in drawn.root.rglob("*.png")}


def test_equal_arguments_draw_equal_bytes_in_several_processes(drawn, tmp_path):
    again = synthesise("ck+", tmp_path / "again", subjects=4, seed=4, processes=2)
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (drawn.root, again.root)
    ]
    assert files[0] == files[1]


def test_more_people_than_there_are_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="names for 995 people, but got 996: ask for fewer"):
        synthesise("ck+", tmp_path / "out", subjects=996)
    assert not list(tmp_path.iterdir())


@needs_model
def test_yunet_finds_the_drawn_faces(drawn):
    detector = cv2.FaceDetectorYN.create(str(MODEL), "", (320, 240), 0.6)
    points = read_landmarks(drawn.root / "landmarks.csv")
    found = defaultdict(list)
    for picture in ck_plus.scan(drawn.root).pictures:
        image = cv2.imread(str(drawn.root / picture.source))
        _, faces = detector.detect(cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA))
        found[0 if faces is None else len(faces)].append(picture.source)
        if faces is not None:
            scale = np.array([image.shape[1] / 320, image.shape[0] / 240])
            error = np.linalg.norm(faces[0][4:14].reshape(5, 2) * scale - points[picture.source], axis=1).mean()
            assert error < 25  # pixels; the eyes are about 100 apart
    assert len(found[1]) >= 0.98 * sum(map(len, found.values()))


def test_a_drawn_set_is_shown_and_prepared_into_the_folder_ck_plus(drawn, tmp_path):
    shown = json.loads(idenctl("data", "show", "ck+", "--root", drawn.root, "--json").stdout)
    points = ["--landmarks", drawn.root / "landmarks.csv", "--store", tmp_path]
    run = idenctl("data", "prepare", "ck+", "--root", drawn.root, *points, "--json")
    assert run.returncode == 0, run.stderr
    made = json.loads(run.stdout)
    assert (made["synthetic"], made["name"], made["num_faces"]) == (True, "ck+", shown["frames"])
    faces = prepared.load(tmp_path / "data" / "ck+")
    assert sorted(set(faces.label)) == [label for label, number in shown["classes"].items() if number]
    assert "ck+" in config.DATASETS  # a study may name it
