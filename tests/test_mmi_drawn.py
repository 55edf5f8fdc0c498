"""The drawn MMI: against a reader of its own, and found, shown and prepared like the real set."""

import json
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from conftest import idenctl

from idennet_core import config
from idennet_core.datasets import clips, mmi, prepared
from idennet_core.datasets.synthetic.mmi import clips_of
from idennet_core.datasets.synthetic.sets import synthesise
from idennet_core.datasets.synthetic.world import arching
from orchestrator.cli.data import read_landmarks

MODEL = Path(__file__).parents[2] / "shared/models/yunet_n_dynamic.onnx"
needs_model = pytest.mark.skipif(not MODEL.exists(), reason=f"no YuNet model in {MODEL.parent}")
EMOTIONS = {"1": "anger", "2": "disgust", "3": "fear", "4": "happiness", "5": "sadness", "6": "surprise"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "mmi"
    return synthesise("mmi", root, subjects=4, seed=4, processes=1)


def sessions_of(root):
    """What another reader finds: the folder, clip, view, emotion (None without one) and media of every session."""
    for folder in (root / "Sessions").iterdir():
        assert folder.name.isdigit()
        view = ElementTree.parse(folder / "session.xml").getroot().find("track").get("view")
        (annotation,) = (p for p in folder.glob("S*.xml") if not p.name.endswith("-oao_aucs.xml"))
        tags = ElementTree.parse(annotation).getroot().findall("Metatag")
        emotion = {tag.get("Name"): tag.get("Value") for tag in tags}.get("Emotion")
        media = sorted(p for p in folder.iterdir() if p.suffix in (".avi", ".jpg"))
        yield folder, annotation.stem, view, emotion, media


def frames_of(media):
    if media[0].suffix == ".jpg":
        return [cv2.imread(str(path)) for path in media]
    (path,) = media
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    return frames


def test_the_drawn_layout_is_that_of_the_real_set_with_its_traps(drawn):
    kinds, traps, places = Counter(), Counter(), set()
    for folder, clip, view, emotion, media in sessions_of(drawn.root):
        frames = frames_of(media)
        if emotion is None or emotion not in EMOTIONS or view == "1" or len(frames) < 3:
            traps[emotion is None, emotion == "7", view == "1", len(frames) == 1] += 1
        else:
            kinds[view, frames[0].shape[:2], media[0].suffix] += 1
            assert len(frames) >= 6
        names = [tag.get("Name") for tag in ElementTree.parse(folder / f"{clip}.xml").iter("Metatag")]
        places.add(names.index("Emotion") if emotion else None)
        assert clip[:4] in {"S001", "S002", "S003", "S004"}
    assert set(kinds) == {
        ("0", (576, 720), ".avi"),  # on its side
        ("0", (480, 640), ".avi"),
        ("0", (480, 640), ".jpg"),
        ("2", (576, 720), ".avi"),
    }
    assert sorted(traps) == sorted(tuple(i == k for i in range(4)) for k in range(4))
    assert len(places) > 2  # a tag must be found by name
    assert any(drawn.root.rglob("*-oao_aucs.xml"))
    numbers = {folder.name: clip[:4] for folder, clip, *_ in sessions_of(drawn.root)}
    in_order = [numbers[name] for name in sorted(numbers, key=int)]
    assert in_order != sorted(in_order)  # a session's number says nothing about the subject


def test_the_loader_finds_in_the_drawn_set_what_another_reader_finds(drawn):
    expected = set()
    for folder, clip, view, emotion, media in sessions_of(drawn.root):
        if emotion in EMOTIONS and view != "1" and (media[0].suffix == ".avi" or len(media) > 2):
            expected.add((f"{folder.name}/{clip}", clip[:4], EMOTIONS[emotion]))
    scan = mmi.scan(drawn.root)
    assert {(p.sequence, p.subject, p.label) for p in scan.pictures} == expected
    assert len(scan.pictures) == 3 * len(expected) == 3 * 28
    assert Counter(p.subject for p in scan.pictures) == {f"S{i:03d}": 21 for i in range(1, 5)}
    assert scan.synthetic
    assert not scan.warnings
    assert set(read_landmarks(drawn.root / "landmarks.csv")) == {p.source for p in scan.pictures}


def test_the_whole_drawn_set_has_as_many_usable_sequences_as_the_paper():
    usable = [clip for person in range(30) for clip in clips_of(person) if not clip.trap]
    assert len(usable) == 205
    assert {clip.trap for person in range(30) for clip in clips_of(person)} > {""}
    assert len({clip.name for clip in usable}) == 205


def test_a_sequence_goes_to_the_peak_in_the_middle_three_frames_and_back():
    for number in range(6, 12):
        strengths = arching(number)
        assert len(strengths) == number
        assert strengths[0] == strengths[-1] == 0
        peak = strengths > 0.9
        assert np.flatnonzero(peak).tolist() == [number // 2 - 1, number // 2, number // 2 + 1]


@needs_model
def test_the_true_points_lie_on_the_face_in_frames_as_another_reader_decodes_them(drawn):
    """The face is cut out upright around the true points with plain turns and found there by the detector alone."""
    points = read_landmarks(drawn.root / "landmarks.csv")
    turns = set()
    media_of = {f"{folder.name}/{clip}": media for folder, clip, _, _, media in sessions_of(drawn.root)}
    for picture in mmi.scan(drawn.root).pictures[1::3]:
        frames = frames_of(media_of[picture.sequence])
        frame, true = frames[len(frames) // 2], points[picture.source]
        across = true[1] - true[0]
        angle = round(np.degrees(np.arctan2(across[1], across[0])) / 90) % 4
        turns.add(angle)
        for _ in range(angle):  # anticlockwise, as the eyes say
            true = np.stack([true[:, 1], frame.shape[1] - 1 - true[:, 0]], axis=1)
            frame = cv2.rotate(frame, cv2.ROTATE_90_COUNTERCLOCKWISE)
        left = max(int(true[:, 0].mean() - 2 * np.hypot(*across)), 0)
        crop = np.ascontiguousarray(frame[:, left : left + int(4 * np.hypot(*across))])
        scale = 160 / crop.shape[1]
        crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        detector = cv2.FaceDetectorYN.create(str(MODEL), "", (crop.shape[1], crop.shape[0]), 0.6)
        _, faces = detector.detect(crop)
        found = faces[0][4:14].reshape(5, 2) / scale + (left, 0)
        assert np.linalg.norm(found - true, axis=1).mean() < 0.25 * np.hypot(*across)
    assert turns == {0, 1, 3}


@needs_model
def test_the_detector_finds_the_frontal_view_whichever_half_and_side_it_is_on(drawn, tmp_path):
    run = idenctl(
        "data", "prepare", "mmi", "--root", drawn.root, "--detector", MODEL, "--store", tmp_path, "--json"
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    made = json.loads(run.stdout)
    assert made["num_faces"] >= 0.98 * 84
    assert made["point_error"]["p95"] < 25  # pixels; the eyes are 75 to 120 apart, the other half 360 away


def test_a_drawn_set_is_shown_and_prepared_with_its_true_points(drawn, tmp_path):
    shown = json.loads(idenctl("data", "show", "mmi", "--root", drawn.root, "--json").stdout)
    points = ["--landmarks", drawn.root / "landmarks.csv", "--store", tmp_path]
    made = json.loads(idenctl("data", "prepare", "mmi", "--root", drawn.root, *points, "--json").stdout)
    assert (made["synthetic"], made["name"], made["num_faces"]) == (True, "mmi", shown["frames"])
    assert made["settings"] | {"view": "frontal", "frames": "middle 3"} == made["settings"]
    faces = prepared.load(tmp_path / "data/mmi")
    assert {source.rpartition("#")[2] for source in faces.source if ".avi" in source} == set(clips.MIDDLE)
    assert "mmi" in config.DATASETS  # a study may name it


def test_equal_arguments_draw_equal_bytes_in_several_processes(drawn, tmp_path):
    again = synthesise("mmi", tmp_path / "again", subjects=4, seed=4, processes=2)
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (drawn.root, again.root)
    ]
    assert files[0] == files[1]
