"""MMI: the loader against sessions made by hand."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from conftest import idenctl

from idennet_core.datasets import clips, mmi, prepared
from idennet_core.datasets.preparation import from_landmarks, prepare
from idennet_core.datasets.prepared import Face
from idennet_core.datasets.scan import describe
from idennet_core.faces.alignment import TEMPLATE
from idennet_core.faces.detection import Look
from idennet_core.streams import generator


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


def test_videos_and_stills_that_cannot_be_decoded_are_listed_and_the_rest_is_prepared(tmp_path, capfd):
    whole = session(tmp_path, 1) / "S001-001.avi"
    film(whole, range(0, 240, 10), (640, 480))
    damaged = {2: b"", 3: b"no video" * 999, 4: whole.read_bytes()[: whole.stat().st_size // 2]}
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
    assert re.fullmatch(r"damaged or cut off: \d+ of 24 frames can be decoded", cut.pop())
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


def test_odd_numbers_and_encodings_cost_their_clip_alone(tmp_path):
    long, odd = "1" * 5000, '<?xml version="1.0" encoding="{}"?><a><Metatag Name="Emotion" Value="1"/></a>'
    session(tmp_path, 1, emotion=long)
    (session(tmp_path, 2) / "S001-001.xml").write_text(odd.format("klingon"))
    (session(tmp_path, 3) / "S001-001.xml").write_text(odd.format("rot13"))
    (session(tmp_path, 4) / "2²").write_bytes(b"")
    found = reasons(mmi.scan(tmp_path))
    assert found["1/S001-001"] == f"its annotation: Emotion must be a whole number, but is '{'1' * 20}'"
    assert found["2/S001-001"] == "its annotation: not readable XML (unknown encoding: klingon)"
    assert found["3/S001-001"].startswith("its annotation: not readable XML ('rot13' is not a text encoding")
    assert found["4/2²"].startswith("neither a clip")
    assert len(found) == 4


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


def test_a_manifest_may_begin_with_a_byte_order_mark_and_end_its_lines_as_windows_does(tmp_path):
    session(tmp_path, 1)
    (tmp_path / "list").write_bytes("\ufeff1/S001-001\r\n2/S001-001\r\n".encode())
    assert mmi.read_manifest(tmp_path / "list") == {"1/S001-001", "2/S001-001"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1/S001-001\nS001-002\n", "list:2 must be session/clip such as 12/S001-002, but is 'S001-002'"),
        ("1/S001-001\n1/S001-001", "list:2 must name a sequence once, but 1/S001-001 occurs twice"),
        ("../1/S001-001", "list:1 must be session/clip"),
        ("1" * 5000 + "/S001-001", "list:1 must be session/clip"),
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


def test_how_a_picture_is_looked_at_follows_its_session_and_its_height():
    views = {"front": 0, "both": 2}
    sideways, upright = np.zeros((576, 720), np.uint8), np.zeros((480, 640), np.uint8)
    front, both = (Face("S001", "fear", sequence, "1", "", "") for sequence in views)
    assert mmi.looks(views, front, upright) == (Look(),)
    assert [look.part(sideways).shape for look in mmi.looks(views, front, sideways)][:2] == [(720, 576)] * 2
    assert [look.part(sideways).shape for look in mmi.looks(views, both, sideways)] == [(576, 360)] * 2
