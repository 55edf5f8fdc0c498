"""The drawn data sets: read back with the standard library and OpenCV alone, looked for by a detector of real faces."""

import csv
import json
import subprocess
import sys
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import cv2
import numpy as np
import pytest

from idennet_core.datasets.synthetic import oulu_casia, sets, world
from idennet_core.datasets.synthetic.sets import synthesise
from idennet_core.faces import people
from idennet_core.faces.drawing import draw
from idennet_core.faces.people import ACTIONS, Person, person_of
from idennet_core.faces.sketching import View
from idennet_core.streams import generator

MODEL = Path(__file__).parents[2] / "shared" / "models" / "yunet_n_dynamic.onnx"
FER_TEN = [
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "NF"),
]
POINTS = ("rex", "rey", "lex", "ley", "nx", "ny", "rmx", "rmy", "lmx", "lmy")
STILL = View(size=(320, 240), unit=23, centre=(160, 106), grain=0)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def points_of(row):
    return np.array([float(row[column]) for column in POINTS]).reshape(5, 2)


def bytes_of(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def oulu(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "oulu"
    return synthesise("oulu-casia", root, subjects=4, seed=3, processes=1)


@pytest.fixture(scope="module")
def casia(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "casia"
    return synthesise("casia-webface", root, subjects=4, seed=3, processes=1)


@pytest.fixture(scope="module")
def ferplus(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "ferplus"
    return synthesise("ferplus", root, subjects=300, seed=3, processes=2)


def test_oulu_has_six_named_sequences_of_jpeg_frames_for_every_subject(oulu):
    strong = oulu.root / "OriginalImg" / "VL" / "Strong"
    assert sorted(path.name for path in strong.iterdir()) == ["P001", "P002", "P003", "P004"]
    lengths = set()
    for subject in strong.iterdir():
        expressions = sorted(path.name for path in subject.iterdir())
        assert expressions == ["Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"]
        for sequence in subject.iterdir():
            frames = sorted(path.name for path in sequence.iterdir())
            assert frames == [f"{i:03d}.jpeg" for i in range(len(frames))]
            assert cv2.imread(str(sequence / frames[-1]), cv2.IMREAD_UNCHANGED).shape[:2] == (240, 320)
            lengths.add(len(frames))
    assert min(lengths) >= 7
    assert len(lengths) > 1


@pytest.mark.parametrize("which", ["oulu", "casia"])
def test_every_picture_has_its_true_points_inside_it(which, request):
    drawn = request.getfixturevalue(which)
    rows = rows_of(drawn.root / "landmarks.csv")
    pictures = {path.relative_to(drawn.root).as_posix() for path in drawn.root.rglob("*.jp*g")}
    assert {row["source"] for row in rows} == pictures
    assert len(rows) == drawn.pictures
    height, width = cv2.imread(str(drawn.root / rows[0]["source"]), cv2.IMREAD_UNCHANGED).shape[:2]
    for row in rows:
        points = points_of(row)
        assert ((points > 0) & (points < (width, height))).all()
        assert points[0, 0] < points[1, 0]  # the subject's right eye is on the left of the picture
        assert points[3, 0] < points[4, 0]
        assert points[:2, 1].max() < points[2, 1] < points[3:, 1].min()


def test_casia_has_a_folder_an_identity_with_sparse_ids_of_seven_digits(casia):
    folders = sorted(path.name for path in casia.root.iterdir() if path.is_dir())
    assert folders[0] == "0000045"
    assert len(folders) == 4
    assert {len(name) for name in folders} == {7}
    ids = np.array(folders, dtype=int)
    assert (np.diff(ids) > 0).all()
    assert ids[-1] > ids[0] + 3
    for folder in folders:
        names = sorted(path.name for path in (casia.root / folder).iterdir())
        assert names == [f"{i:03d}.jpg" for i in range(1, 26)]
        assert cv2.imread(str(casia.root / folder / names[0])).shape[:2] == (250, 250)


def test_ferplus_has_the_two_files_of_the_real_set_in_the_same_row_order(ferplus):
    pixels, votes = rows_of(ferplus.root / "fer2013.csv"), rows_of(ferplus.root / "fer2013new.csv")
    assert list(pixels[0]) == ["emotion", "pixels", "Usage"]
    assert list(votes[0]) == ["Usage", "Image name", *FER_TEN]
    assert len(pixels) == len(votes) == ferplus.pictures == 600
    usage = [row["Usage"] for row in pixels]
    assert usage == [row["Usage"] for row in votes] == ["Training"] * 480 + ["PublicTest"] * 60 + ["PrivateTest"] * 60
    assert {len(row["pixels"].split()) for row in pixels} == {48 * 48}
    assert {row["emotion"] for row in pixels} <= set("0123456")
    names = [row["Image name"] for row in votes if row["Image name"]]
    expected = [f"fer{i:07d}.png" for i in range(len(names))]
    assert names == [expected[0], expected[3], *expected[2:]]  # a name that occurs twice


def test_ferplus_votes_mostly_agree_and_a_row_without_a_face_has_no_name(ferplus):
    votes = rows_of(ferplus.root / "fer2013new.csv")
    counts = np.array([[int(row[column]) for column in FER_TEN] for row in votes])
    assert (counts.sum(axis=1) == 10).all()
    no_face = counts[:, 9] == 10
    assert no_face.any()
    assert [row["Image name"] == "" for row in votes] == no_face.tolist()
    kept = np.where(counts > 1, counts, 0)[~no_face]
    decided = (kept.max(axis=1) * 2 > kept.sum(axis=1)) & (kept.argmax(axis=1) < 8)
    assert 0.8 < decided.mean() < 1
    assert set(kept[decided].argmax(axis=1)) == set(range(8))


def test_ferplus_as_files_has_a_png_a_name_and_two_sources_of_votes_that_differ(ferplus, tmp_path):
    drawn = synthesise("ferplus", tmp_path / "png", subjects=300, seed=3, processes=2, form="png")
    assert (drawn.root / "fer2013new.csv").read_bytes() == (ferplus.root / "fer2013new.csv").read_bytes()
    pixels, votes = rows_of(ferplus.root / "fer2013.csv"), rows_of(drawn.root / "fer2013new.csv")
    differ = 0
    for usage, folder in (("Training", "Train"), ("PublicTest", "Valid"), ("PrivateTest", "Test")):
        place = drawn.root / f"FER2013{folder}"
        rows = [(p, v) for p, v in zip(pixels, votes, strict=True) if v["Usage"] == usage and v["Image name"]]
        exported = {v["Image name"]: p["pixels"] for p, v in rows}  # a later row replaces an earlier one
        first = {v["Image name"]: [v[column] for column in FER_TEN] for _, v in reversed(rows)}
        assert {path.name for path in place.glob("*.png")} == exported.keys()
        for name, values in exported.items():
            picture = cv2.imread(str(place / name), cv2.IMREAD_UNCHANGED)
            assert picture.shape == (48, 48)
            assert " ".join(map(str, picture.ravel())) == values
        with (place / "label.csv").open(newline="") as file:
            labels = list(csv.reader(file))
        assert [row[0] for row in labels] == list(dict.fromkeys(v["Image name"] for _, v in rows))
        assert {row[1] for row in labels} == {"(0, 0, 48, 48)"}
        assert {sum(map(int, row[2:])) for row in labels} == {10}
        differ += sum(row[2:] != first[row[0]] for row in labels)
    assert 0.01 < differ / 600 < 0.1
    assert len(list(drawn.root.rglob("*.png"))) == sum(v["Image name"] != "" for v in votes) - 1


FORMS = [(name, form) for name in sets.DRAWN for form in ("", *sets.DRAWN[name].forms)]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_equal_arguments_give_equal_bytes_whatever_the_number_of_processes(name, form, tmp_path):
    subjects = 20 if name == "ferplus" else 4
    one = synthesise(name, tmp_path / "one", subjects, seed=5, processes=1, form=form)
    two = synthesise(name, tmp_path / "two", subjects, seed=5, processes=2, form=form)
    other = synthesise(name, tmp_path / "other", subjects, seed=6, processes=1, form=form)
    assert bytes_of(one.root) == bytes_of(two.root)
    assert bytes_of(one.root) != bytes_of(other.root)


def test_a_set_says_that_it_is_synthetic_and_with_which_arguments(oulu):
    mark = json.loads((oulu.root / "SYNTHETIC.json").read_text())
    assert mark["synthetic"] is True
    assert mark["drawn_by"] == "idenctl"
    assert mark["arguments"] == {"name": "oulu-casia", "subjects": 4, "identity_effect": 1.0, "seed": 3, "form": ""}


def test_a_set_already_drawn_is_left_alone_and_another_takes_its_place_whole(tmp_path):
    root = tmp_path / "faces"
    synthesise("ferplus", root, subjects=2)
    before = (root / "fer2013.csv").stat().st_mtime_ns
    assert synthesise("ferplus", root, subjects=2).reused
    assert (root / "fer2013.csv").stat().st_mtime_ns == before
    assert not synthesise("casia-webface", root, subjects=1).reused
    assert not (root / "fer2013.csv").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]  # nothing left beside it


def test_a_persons_traits_are_in_every_frame_and_in_no_other_data_set():
    drawn = [person_of(name, 0, i) for name in sets.DRAWN for i in range(300)]
    assert len({astuple(person) for person in drawn}) == 300 * len(sets.DRAWN) >= 1500
    assert person_of("oulu-casia", 0, 7) == person_of("oulu-casia", 0, 7)
    still = np.zeros((2, len(ACTIONS)))
    first, second, stranger = (draw(drawn[i], still, STILL)[0].astype(int) for i in (0, 0, 1))
    assert (first == second).all()
    assert np.abs(first - stranger).mean() > 3


def test_a_sequence_rises_from_the_resting_face_and_stays_at_the_peak_for_three_frames():
    for frames in (7, 8, 11):
        strengths = world.rising(frames)
        assert strengths[0] == 0
        assert strengths[-1] == 1
        assert (np.diff(strengths) > 0).all()
        assert (strengths[-3:] > 0.9).all()


@pytest.mark.parametrize("expression", oulu_casia.EXPRESSIONS)
def test_a_picture_departs_from_the_resting_face_as_the_expression_grows(expression):
    person, peak = person_of("oulu-casia", 0, 3), people.full_actions(expression)
    rest, *grown = (draw(person, level * peak, STILL)[0].astype(int) for level in (0, 0.25, 0.5, 0.75, 1))
    assert (np.diff([np.abs(picture - rest).mean() for picture in grown]) > 0).all()


def test_at_identity_effect_zero_traits_leave_the_cues_untouched():
    drawn = [person_of("oulu-casia", 0, i) for i in range(40)]
    assert all((people.resting_actions(person, 0.0) == 0).all() for person in drawn)
    # The cue that the true points show, the width of the mouth, is the same in all of them.
    still = np.zeros((2, len(ACTIONS)))
    corners = [draw(person, still, STILL)[1][3:] for person in drawn]
    widths = {round(float(np.ptp(points[:, 0])), 6) for points in corners}
    assert len(widths) == 1
    rests = [draw(person, people.resting_actions(person, 1.0), STILL)[1][3:] for person in drawn]
    assert len({round(float(np.ptp(points[:, 0])), 6) for points in rests}) > 30


def test_the_resting_face_is_a_linear_function_of_visible_traits_and_grows_with_the_effect():
    drawn = [person_of("casia-webface", 0, i) for i in range(200)]
    rests = np.array([people.resting_actions(person, 1.0)[0] for person in drawn])
    traits = np.array([[getattr(person, trait) for trait in people.TRAITS] for person in drawn])
    _, residual, *_ = np.linalg.lstsq(traits, rests, rcond=None)
    assert residual.max() < 1e-20
    assert rests.std(axis=0).max() > 0.2
    np.testing.assert_allclose(people.resting_actions(drawn[0], 2.5)[0], 2.5 * rests[0])


def test_the_left_side_of_a_picture_shows_the_subjects_right():
    actions = np.zeros((2, len(ACTIONS)))
    actions[0, ACTIONS.index("corner_pull")] = 1
    _, points = draw(Person(), actions, STILL)
    _, still = draw(Person(), np.zeros((2, len(ACTIONS))), STILL)
    assert points[3, 1] < still[3, 1] - 3
    assert points[4, 1] == pytest.approx(still[4, 1])


def test_the_points_move_with_the_picture():
    """The same face turned and shifted: the points must follow the pixels, found again by matching patches."""
    person, actions = Person(skin=190, hair_style="short"), people.full_actions("fear")
    first, points = draw(person, actions, STILL)
    moved, expected = draw(person, actions, View(size=(320, 240), unit=23, centre=(171, 99), roll=0, grain=0))
    for point, target in zip(points, expected, strict=True):
        x, y = np.round(point).astype(int)
        match = cv2.matchTemplate(moved, first[y - 10 : y + 11, x - 10 : x + 11], cv2.TM_SQDIFF)
        found = np.array(cv2.minMaxLoc(match)[2]) + 10
        np.testing.assert_allclose(found - (x, y), target - point, atol=0.6)
    _, turned = draw(person, actions, View(size=(320, 240), unit=23, centre=(160, 106), roll=90, grain=0))
    np.testing.assert_allclose(turned - (160, 106), (points - (160, 106)) @ [[0, 1], [-1, 0]], atol=1e-9)


def test_expressions_of_unseen_people_are_told_apart_well_but_not_perfectly():
    """Nearest class mean over small aligned pictures of the peaks: far above one in six, and no gift."""
    template = np.array([(20.5, 27.7), (39.4, 27.6), (30.0, 38.4), (22.3, 49.5), (37.9, 49.4)])
    faces, labels, subjects = [], [], []
    for subject in range(40):
        person = person_of("oulu-casia", 0, subject)
        for label, expression in enumerate(oulu_casia.EXPRESSIONS):
            habits, now = generator("habits", subject, label), generator("now", subject, label)
            picture, points = draw(person, people.performed_actions(expression, habits, now), STILL)
            matrix, _ = cv2.estimateAffinePartial2D(points, template, method=cv2.LMEDS)
            face = cv2.warpAffine(picture, matrix, (60, 60))[6:54, 6:54].astype(float)
            edges = cv2.Sobel(face, cv2.CV_64F, 0, 1)  # brows, lids and lips are mostly level
            edges = cv2.resize(cv2.GaussianBlur(edges, (0, 0), 1.0), (24, 24), interpolation=cv2.INTER_AREA)
            faces.append((edges / edges.std()).ravel())
            labels.append(label)
            subjects.append(subject)
    faces, labels, subjects = np.array(faces), np.array(labels), np.array(subjects)
    known = subjects < 28
    means = np.array([faces[known & (labels == k)].mean(axis=0) for k in range(6)])
    distances = ((faces[~known][:, None] - means) ** 2).sum(axis=-1)
    accuracy = (distances.argmin(axis=1) == labels[~known]).mean()
    assert 0.4 < accuracy < 0.97


@pytest.mark.skipif(not MODEL.exists(), reason=f"no YuNet model at {MODEL}: the detector's file is the user's own")
@pytest.mark.parametrize("which", ["oulu", "casia"])
def test_yunet_finds_one_face_in_98_of_100_pictures_within_four_pixels(which, request):
    root = request.getfixturevalue(which).root
    rows = rows_of(root / "landmarks.csv")[::2]
    height, width = cv2.imread(str(root / rows[0]["source"])).shape[:2]
    detector = cv2.FaceDetectorYN.create(str(MODEL), "", (width, height), 0.6)
    counts, errors = Counter(), []
    for row in rows:
        _, found = detector.detect(cv2.imread(str(root / row["source"])))
        counts[0 if found is None else len(found)] += 1
        if found is not None:
            errors.append(np.linalg.norm(found[0][4:14].reshape(5, 2) - points_of(row), axis=1).mean())
    assert counts[1] >= 0.98 * len(rows)
    assert np.mean(errors) < 4.5 if which == "casia" else np.mean(errors) < 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "lfw"}, r"must be one of oulu-casia, ck\+, mmi, ferplus, casia-webface, but got 'lfw'"),
        ({"subjects": 0}, "subjects must be at least 1, but got 0"),
        ({"identity_effect": -0.5}, "identity effect must be a number from 0 to 100, but got -0.5"),
        ({"identity_effect": float("nan")}, "but got nan"),
        ({"identity_effect": float("inf")}, "but got inf"),
        ({"identity_effect": 1e9}, "but got 1e\\+09"),  # its faces would not fit on any picture
        ({"seed": -1}, "seed must be at least 0, but got -1"),
        ({"processes": 0}, "processes must be at least 1, but got 0"),
        ({"form": "png"}, "the form of oulu-casia must be one of cropped, but got 'png': leave it out"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line_before_anything_is_written(change, message, tmp_path):
    arguments = {"name": "oulu-casia", "out": tmp_path / "out", "subjects": 2, **change}
    with pytest.raises(ValueError, match=message) as caught:
        synthesise(**arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, "{", "[]", '{"drawn_by": "somebody"}', '{"drawn_by": "idenctl"}'])
def test_a_folder_that_holds_something_else_is_refused_and_kept(content, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    if content is not None:
        (tmp_path / "SYNTHETIC.json").write_text(content)
    before = bytes_of(tmp_path)
    with pytest.raises(ValueError, match="must be new, empty or drawn by idenctl"):
        synthesise("ferplus", tmp_path, subjects=1)
    assert bytes_of(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(NotADirectoryError, match="must be a directory"):
        synthesise("ferplus", tmp_path / "out", subjects=1)


def test_a_face_refuses_actions_of_another_shape():
    with pytest.raises(ValueError, match=r"must be \[2, 14\], but got \[14\]"):
        draw(Person(), np.zeros(14), STILL)


def test_a_performance_depends_on_its_own_streams_alone():
    def perform():
        return people.performed_actions("fear", generator("a"), generator("b"))

    assert (perform() == perform()).all()


def test_the_contact_sheet_is_a_picture_with_a_row_a_person_under_a_title(tmp_path):
    sets.contact_sheet("oulu-casia", tmp_path / "sheet.png", subjects=2)
    sheet = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet.shape == (56 + 2 * 240, 7 * 200)
    assert (sheet[:56] < 128).sum() > 500  # ink: the title that says what these faces are
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_drawing_needs_no_torch():
    code = "import idennet_core.datasets.synthetic.sets, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
