"""MMI: the loader against sessions made by hand, and the drawn set against a reader of its own."""

import json
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from conftest import idenctl

from idennet_core.datasets import clips, mmi, prepared
from idennet_core.datasets.preparation import from_landmarks, prepare
from idennet_core.datasets.prepared import Face
from idennet_core.datasets.scan import describe
from idennet_core.datasets.synthetic.mmi import clips_of
from idennet_core.datasets.synthetic.sets import synthesise
from idennet_core.datasets.synthetic.world import arching
from idennet_core.faces.alignment import TEMPLATE
from idennet_core.faces.detection import Look, aside
from idennet_core.streams import generator
from orchestrator import idennet
from orchestrator.cli.data import read_landmarks

MODEL = Path(__file__).parents[2] / "shared/models/yunet_n_dynamic.onnx"
needs_model = pytest.mark.skipif(not MODEL.exists(), reason=f"no YuNet model in {MODEL.parent}")
EMOTIONS = {"1": "anger", "2": "disgust", "3": "fear", "4": "happiness", "5": "sadness", "6": "surprise"}


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "mmi"
    return synthesise("mmi", root, subjects=4, seed=4, processes=1)


def session(root, number, clip="S001-001", view="0", emotion="4", media=(".avi",)):
    """A session's folder with one clip whose media hold nothing."""
    folder = root / "Sessions" / str(number)
    folder.mkdir(parents=True)
    track = f'<track view="{view}"/><track view="7"/>' if view is not None else ""
    (folder / "session.xml").write_text(f"<session>{track}</session>")
    tag = f'<Metatag Value="{emotion}" Name="Emotion"/>' if emotion is not None else ""
    (folder / f"{clip}.xml").write_text(f'<a><Metatag Name="Age" Value="2"/><b>{tag}</b></a>')
    for end in media:
        (folder / f"{clip}{end}").write_bytes(b"")
    return folder


def film(path, greys, size=(64, 48)):
    """A video whose frames are plain, one grey level each."""
    video = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, size)
    for grey in greys:
        video.write(np.full((size[1], size[0], 3), grey, np.uint8))
    video.release()


def reasons(scan):
    return {entry.source.removeprefix("Sessions/"): entry.reason for entry in scan.skipped}


# loader


def test_every_trap_of_the_layout_is_listed_and_the_rest_is_used(tmp_path):
    root = tmp_path / "MMI-copy"
    good = session(root, 2, "S010-003")
    (good / "S010-003-oao_aucs.xml").write_text("<a/>")  # action units, which are known and not used
    (good / ".DS_Store").write_bytes(b"")
    session(root, 10, "s002-001", view="2", emotion="6")
    several = session(root, 11, "S003-001")
    (several / "S003-002.xml").write_bytes((several / "S003-001.xml").read_bytes())
    (several / "S003-002.avi").write_bytes(b"")
    (several / "S003-004.avi").write_bytes(b"")
    (several / "001.jpg").write_bytes(b"")
    session(root, 20, view="1")
    session(root, 21, view="5")
    session(root, 22, view=None)
    (session(root, 23) / "session.xml").unlink()
    (session(root, 24) / "session.xml").write_bytes(b"")
    for number, emotion in enumerate(("7", "0", "x", "", None), start=30):
        session(root, number, emotion=emotion)
    twice = session(root, 35)
    (twice / "S001-001.xml").write_text('<a><Metatag Name="Emotion" Value="1"/><Metatag Name="Emotion" Value="2"/></a>')
    (session(root, 36) / "S001-001.xml").write_text("<a><b></a>")
    session(root, 40, media=())
    session(root, 41, media=("-1.jpg", "-2.jpg"))
    session(root, 42, media=(".avi", ".jpg"))
    (root / "Sessions/50").mkdir()
    (root / "Sessions/notes").mkdir()
    (root / "Sessions/.DS_Store").write_bytes(b"")

    scan = mmi.scan(tmp_path)
    listed = {source.removeprefix("MMI-copy/Sessions/"): reason for source, reason in reasons(scan).items()}
    few = "of the 3 pictures that are needed at least"
    assert listed == {
        ".DS_Store": "not a session's folder (a number)",
        "notes": "not a session's folder (a number)",
        "2/.DS_Store": "neither a clip such as S001-002, its annotation nor session.xml",
        "11/001.jpg": "neither a clip such as S001-002, its annotation nor session.xml",
        "11/S003-004": "its annotation: there is no S003-004.xml",
        "20/S001-001": "seen from the side (view 1)",
        "21/S001-001": "session.xml: view must be 0, 1 or 2, but is '5'",
        "22/S001-001": "session.xml: its first track names no view",
        "23/S001-001": "session.xml: there is no session.xml",
        "24/S001-001": "session.xml: not readable XML (no element found: line 1, column 0)",
        "30/S001-001": "emotion 7 is none of the six expressions (1 to 6)",
        "31/S001-001": "emotion 0 is none of the six expressions (1 to 6)",
        "32/S001-001": "its annotation: Emotion must be a whole number, but is 'x'",
        "33/S001-001": "its annotation: Emotion must be a whole number, but is ''",
        "34/S001-001": "its annotation: no Metatag named Emotion",
        "35/S001-001": "its annotation: 2 different emotions",
        "36/S001-001": "its annotation: not readable XML (mismatched tag: line 1, column 8)",
        "40/S001-001": f"0 {few}",
        "41/S001-001": f"2 {few}",
        "50": "no clip such as S001-002 in this session",
        "42/S001-001": "2 files, one video or pictures alone are needed",
    }
    assert [(p.subject, p.label, p.sequence) for p in scan.pictures[::3]] == [
        ("S010", "happiness", "2/S010-003"),
        ("S002", "surprise", "10/s002-001"),
        ("S003", "happiness", "11/S003-001"),
        ("S003", "happiness", "11/S003-002"),
    ]
    place = "MMI-copy/Sessions/2/S010-003.avi"
    assert scan.pictures[:3] == [
        Face("S010", "happiness", "2/S010-003", f"middle{i}", "", f"{place}#middle{i}") for i in (1, 2, 3)
    ]
    assert set(scan.files) == {tmp_path / p.source.partition("#")[0] for p in scan.pictures}
    assert scan.warnings == ("4 frontal sequences, the paper uses 205: give --manifest FILE if you know which",)


@pytest.mark.parametrize("number", [3, 4, 5, 10, 11])
def test_the_middle_three_are_taken_of_stills_and_of_a_video_alike(tmp_path, number):
    """In natural order, whether or not the stills repeat the clip's name."""
    shuffled = generator("stills").permutation(number) + 1
    session(tmp_path, 1, "S004-001", media=[f"-{i}.jpg" for i in shuffled])
    nameless = session(tmp_path, 2, "S004-002", media=())
    for i in shuffled:
        (nameless / f"#{i}.png").write_bytes(b"")
    film(session(tmp_path, 3, "S004-003") / "S004-003.avi", [10 * i for i in range(1, number + 1)])
    scan = mmi.scan(tmp_path)
    middle = [number // 2, number // 2 + 1, number // 2 + 2]  # counted from 1
    assert [p.frame for p in scan.pictures[:3]] == [f"S004-001-{i}" for i in middle]
    assert [p.frame for p in scan.pictures[3:6]] == [f"#{i}" for i in middle]
    assert all(path.is_file() for path in scan.files)
    assert [round(float(scan.read(p).mean()), -1) for p in scan.pictures[6:]] == [10 * i for i in middle]


def test_a_clip_is_decoded_once_for_its_three_frames_even_by_threads(tmp_path):
    for number in (1, 2):
        film(session(tmp_path, number) / "S001-001.avi", range(0, 90, 10))
    scan = mmi.scan(tmp_path)
    clips._middle_frames.cache_clear()
    with ThreadPoolExecutor(6) as pool:
        frames = list(pool.map(scan.read, scan.pictures))
    assert clips._middle_frames.cache_info().misses == 2
    assert [round(float(frame.mean()), -1) for frame in frames] == [30, 40, 50] * 2
    film(tmp_path / "Sessions/1/S001-001.avi", [200] * 5)  # another film in its place is read anew
    os.utime(tmp_path / "Sessions/1/S001-001.avi", ns=(1, 1))
    assert scan.read(scan.pictures[0]).mean() > 190


def test_videos_and_stills_that_cannot_be_decoded_are_listed_and_the_rest_is_prepared(drawn, tmp_path, capfd):
    whole = next(iter(sorted(drawn.root.rglob("*.avi"))))
    content, number_of_frames = whole.read_bytes(), len(frames_of([whole]))
    damaged = {1: content, 2: b"", 3: b"no video" * 999, 4: content[: len(content) // 2]}
    for number, data in damaged.items():
        (session(tmp_path, number) / "S001-001.avi").write_bytes(data)
    film(session(tmp_path, 5) / "S001-001.avi", [10, 20])
    stills = session(tmp_path, 6, media=("-1.jpg", "-2.jpg", "-3.jpg"))
    cv2.imwrite(str(stills / "S001-001-2.jpg"), np.full((480, 640), 99, np.uint8))
    scan = mmi.scan(tmp_path)
    points = from_landmarks({p.source: TEMPLATE for p in scan.pictures})
    made = prepare(scan, tmp_path / "store/mmi", points, {"points": "landmarks"}).metadata
    listed = {source: entry["reason"] for entry in made["skipped"] for source in entry["sources"]}
    video = "not a readable video: empty, damaged or of another format"
    picture = "not a readable picture: empty, cut off or of another format"
    whys = {2: video, 3: video, 5: "2 frames, the middle 3 are needed"}
    assert {s: r for s, r in listed.items() if "/4/" not in s} == {
        f"Sessions/{n}/S001-001.avi#middle{i}": why for n, why in whys.items() for i in (1, 2, 3)
    } | {f"Sessions/6/S001-001-{i}.jpg": picture for i in (1, 3)}
    cut = {reason for source, reason in listed.items() if "/4/" in source}
    assert len(cut) == 1
    assert re.fullmatch(rf"damaged or cut off: \d+ of {number_of_frames} frames can be decoded", cut.pop())
    assert list(prepared.load(tmp_path / "store/mmi").sequence) == ["1/S001-001"] * 3 + ["6/S001-001"]
    assert capfd.readouterr().err == ""  # the decoder's own complaints reach nobody


def test_show_decodes_nothing_and_nothing_usable_is_refused(tmp_path):
    session(tmp_path, 1)
    run = idenctl("data", "show", "mmi", "--root", tmp_path, "--json")
    shown = json.loads(run.stdout)
    assert (run.returncode, shown["frames"], shown["sequences"]) == (0, 3, 1)  # of a video of no byte
    assert run.stderr == f"warning: {shown['warnings'][0]}\n"
    run = idenctl("data", "prepare", "mmi", "--root", tmp_path, "--cropped", "--store", tmp_path / "store")
    assert (run.returncode, run.stdout) == (2, "")
    assert "none of the 3 pictures of mmi could be prepared" in run.stderr
    (tmp_path / "Sessions/1/S001-001.xml").write_text('<a><Metatag Name="Emotion" Value="7"/></a>')
    run = idenctl("data", "show", "mmi", "--root", tmp_path)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert "holds nothing usable of mmi: 1 skipped, the first, Sessions/1/S001-001: emotion 7 is none" in run.stderr


def test_another_layout_is_refused_with_what_was_sought_and_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        mmi.scan(tmp_path / "nowhere")
    (tmp_path / "Sessions/one").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"looked for Sessions/1/session\.xml .* found Sessions") as refusal:
        mmi.scan(tmp_path)
    assert "\n" not in str(refusal.value)
    for copy in ("a", "b"):
        session(tmp_path / copy, 1)
    with pytest.raises(ValueError, match=r"holds sessions .* 2 times .*: give one of them"):
        mmi.scan(tmp_path)
    assert len(mmi.scan(tmp_path / "a").pictures) == len(mmi.scan(tmp_path / "a/Sessions").pictures) == 3


def test_entities_are_refused_before_they_grow(tmp_path):
    lines = [f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 30)]
    bomb = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "ha">{"".join(lines)}]>'
    (session(tmp_path, 1) / "S001-001.xml").write_text(f'{bomb}<a><Metatag Name="Emotion" Value="&e29;"/></a>')
    secret = tmp_path / "secret"
    secret.write_text("4")
    read_file = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}">]><a><Metatag Name="Emotion" Value="1"/>&x;</a>'
    (session(tmp_path, 2) / "S001-001.xml").write_text(read_file)
    session(tmp_path, 3)
    assert reasons(mmi.scan(tmp_path)) == dict.fromkeys(
        ("1/S001-001", "2/S001-001"), "its annotation: it declares entities, which are not read"
    )


# manifest


def test_a_manifest_chooses_the_sequences_and_what_it_misses_is_listed(tmp_path):
    for number in (1, 2, 3):
        session(tmp_path, number)
    session(tmp_path, 4, emotion="7")
    (tmp_path / "frontal.txt").write_text("# ours\n\n1/S001-001\n3/S001-001  # the glasses\n4/S001-001\n9/S001-001\n")
    arguments = ("--root", tmp_path, "--manifest", tmp_path / "frontal.txt", "--json")
    shown = json.loads(idenctl("data", "show", "mmi", *arguments).stdout)
    assert shown["sequences"] == 2
    assert shown["protocol"]["manifest"] == "frontal.txt"
    assert {entry["reason"]: entry["sources"] for entry in shown["skipped"]} == {
        "not in the manifest": ["Sessions/2/S001-001"],
        "emotion 7 is none of the six expressions (1 to 6)": ["Sessions/4/S001-001"],
        "in the manifest, but not in the data set": ["Sessions/9/S001-001"],
    }
    run = idenctl("data", "show", "ck+", *arguments)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "--manifest belongs to another data set, but got it for ck+: leave it out" in run.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1/S001-001\nS001-002\n", "list:2 must be session/clip such as 12/S001-002, but is 'S001-002'"),
        ("1/S001-001\n1/S001-001", "list:2 must name a sequence once, but 1/S001-001 occurs twice"),
        ("../1/S001-001", "list:1 must be session/clip"),
        ("# none\n", "must have a line session/clip"),
        (None, "does not exist: give a file"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused_in_one_line(tmp_path, text, message):
    session(tmp_path, 1)
    if text is not None:
        (tmp_path / "list").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refusal:
        mmi.scan(tmp_path, tmp_path / "list")
    assert "\n" not in str(refusal.value)


def test_two_hundred_and_five_sequences_are_as_the_paper_has_them(tmp_path):
    for number in range(1, 207):
        session(tmp_path, number, f"S{number % 30:03d}-{number:03d}")
    listed = "\n".join(f"{number}/S{number % 30:03d}-{number:03d}" for number in range(1, 206))
    (tmp_path / "list").write_text(listed)
    scan = mmi.scan(tmp_path, tmp_path / "list")
    assert describe(scan)["sequences"] == 205
    assert not scan.warnings
    assert "206 frontal sequences, the paper uses 205" in mmi.scan(tmp_path).warnings[0]


# how a face lies in a picture


@pytest.mark.parametrize("look", [Look(*half, turns) for half in ((0, 1), (0, 0.5), (0.5, 1)) for turns in range(4)])
def test_a_point_found_in_a_part_is_brought_back_to_its_place_in_the_picture(look):
    rng = generator("look")
    for _ in range(20):
        image = np.zeros((int(rng.integers(5, 20)), int(rng.integers(5, 20))), np.uint8)
        part = look.part(image)
        y, x = (int(rng.integers(side)) for side in part.shape)
        image[:] = np.arange(image.size).reshape(image.shape) % 251
        image[image == 250] = 0
        ((x_back, y_back),) = look.back(np.array([[x, y]], float), image.shape)
        image[int(y_back), int(x_back)] = 250
        assert look.part(image)[y, x] == 250


def test_how_a_picture_is_looked_at_follows_its_session_and_its_height():
    views = {"front": 0, "both": 2}
    sideways, upright = np.zeros((576, 720), np.uint8), np.zeros((480, 640), np.uint8)
    front, both = (Face("S001", "fear", sequence, "1", "", "") for sequence in views)
    assert mmi.looks(views, front, upright) == (Look(),)
    assert [look.part(sideways).shape for look in mmi.looks(views, front, sideways)][:2] == [(720, 576)] * 2
    assert [look.part(sideways).shape for look in mmi.looks(views, both, sideways)] == [(576, 360)] * 2


def test_a_turned_face_is_further_aside_than_a_frontal_one_whatever_its_roll():
    frontal, turned = TEMPLATE.copy(), TEMPLATE.copy()
    turned[2, 0] += 8
    rotation = np.array([[0, -1], [1, 0]])
    assert aside(frontal) < 0.01 < 0.3 < aside(turned)
    assert aside(turned @ rotation) == pytest.approx(aside(turned))


# drawn set


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
    assert "mmi" in idennet.DATASETS  # a study may name it


def test_equal_arguments_draw_equal_bytes_in_several_processes(drawn, tmp_path):
    again = synthesise("mmi", tmp_path / "again", subjects=4, seed=4, processes=2)
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (drawn.root, again.root)
    ]
    assert files[0] == files[1]
