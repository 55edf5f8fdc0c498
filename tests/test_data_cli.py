import ctypes
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from layouts import fer_tables, oulu_tree, votes

from idennet_core.datasets import prepared
from idennet_core.faces.detection import MODEL_NAME, MODEL_SHA256
from orchestrator.cli.app import main

ROOT = Path(__file__).parents[1]
MODEL = ROOT.parent / "shared/models/yunet_s_dynamic.onnx"
needs_model = pytest.mark.skipif(not MODEL.exists(), reason=f"no YuNet model in {MODEL.parent}")


def data(*arguments, store=None):
    """`idenctl data …`, in this process because there are many: its exit status and what it printed."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["idenctl", "data", *map(str, arguments)])
        if store:
            patch.setenv("IDENCTL_STORE", str(store))
        with pytest.raises(SystemExit) as ended:
            main()
    return SimpleNamespace(returncode=ended.value.code or 0, stdout=stdout.getvalue(), stderr=stderr.getvalue())


def succeed(*arguments, store=None):
    run = data(*arguments, store=store)
    assert run.returncode == 0, run.stderr
    return run


def refusal(*arguments, store=None):
    """The one line with which a wrong request is refused."""
    run = data(*arguments, store=store)
    assert (run.returncode, run.stdout) == (2, ""), run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A drawn Oulu-CASIA of ten people."""
    root = tmp_path_factory.mktemp("drawn") / "oulu"
    run = succeed("synth", "oulu-casia", "--out", root, "--subjects", 10)
    assert run.stdout.startswith("oulu-casia (synthetic) drawn: 10 people")
    return root


def test_show_counts_a_drawn_set_and_calls_it_synthetic(drawn):
    shown = json.loads(succeed("show", "oulu-casia", "--root", drawn, "--json").stdout)
    assert shown["synthetic"]
    assert (shown["subjects"], shown["sequences"], shown["frames"]) == (10, 60, 180)
    assert shown["classes"] == dict.fromkeys(("anger", "disgust", "fear", "happiness", "sadness", "surprise"), 30)
    assert shown["folds"] == [{"fold": i, "subjects": 1, "sequences": 6, "frames": 18} for i in range(10)]
    assert shown["skipped"] == []
    assert succeed("show", "oulu-casia", "--root", drawn).stdout.startswith("oulu-casia (synthetic)\n10 subjects, 60")


@needs_model
def test_a_set_is_prepared_through_detection_and_measured_against_its_true_points(drawn, tmp_path):
    run = succeed("prepare", "oulu-casia", "--root", drawn, "--detector", MODEL, store=tmp_path)
    faces = prepared.load(tmp_path / "data/oulu-casia")
    assert faces.synthetic
    assert len(faces.faces) >= 0.98 * 180
    assert run.stdout.startswith(f"oulu-casia (synthetic)\n{len(faces.faces)} faces prepared: ")
    assert "points found against true points: mean " in run.stdout
    assert faces.metadata["point_error"]["faces"] == len(faces.faces)
    assert faces.metadata["point_error"]["mean"] < 10  # pixels; the drawn eyes are about 55 apart
    assert faces.metadata["settings"]["sha256"] == hashlib.sha256(MODEL.read_bytes()).hexdigest()


@needs_model
def test_a_process_of_its_own_prints_results_on_stdout_and_only_plain_progress_on_stderr(drawn, tmp_path):
    command = [sys.executable, "-m", "orchestrator.cli.app", "data", "prepare", "oulu-casia", "--root", str(drawn)]
    command += ["--store", str(tmp_path), "--detector", str(MODEL), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout)["synthetic"]
    assert run.stderr.splitlines() == [f"oulu-casia (synthetic): {done} of 180 pictures" for done in (45, 90, 135, 180)]


def test_preparing_again_does_nothing_and_says_so(drawn, tmp_path):
    arguments = (
        "prepare",
        "oulu-casia",
        "--root",
        drawn,
        "--landmarks",
        drawn / "landmarks.csv",
        "--store",
        tmp_path,
    )
    first = json.loads(succeed(*arguments, "--json").stdout)
    again = succeed(*arguments)
    assert (first["fresh"], first["num_faces"]) == (True, 180)
    assert "180 faces already prepared from the same files and settings, nothing to do" in again.stdout
    assert again.stderr == ""
    assert json.loads(succeed(*arguments, "--json").stdout) == first | {"fresh": False}


def test_landmarks_from_parquet_and_csv_give_the_same_faces(drawn, tmp_path):
    pl.read_csv(drawn / "landmarks.csv").write_parquet(tmp_path / "points.parquet")
    ids = [
        json.loads(succeed("prepare", "oulu-casia", "--root", drawn, "--landmarks", file, "--json", store=store).stdout)
        for file, store in (
            (tmp_path / "points.parquet", tmp_path / "a"),
            (drawn / "landmarks.csv", tmp_path / "b"),
        )
    ]
    assert ids[0]["data_id"] == ids[1]["data_id"]


def test_a_missing_row_a_broken_picture_and_a_missing_folder_are_in_the_summary(drawn, tmp_path):
    root = tmp_path / "oulu"
    shutil.copytree(drawn, root)
    points = pl.read_csv(root / "landmarks.csv")
    strong = next(root.rglob("VL/Strong"))
    last = sorted((strong / "P001/Anger").iterdir())[-1]
    sorted((strong / "P002/Fear").iterdir())[-1].write_bytes(b"")
    shutil.rmtree(strong / "P003/Sadness")
    points.filter(pl.col("source") != last.relative_to(root).as_posix()).write_csv(tmp_path / "points.csv")
    run = succeed(
        "prepare", "oulu-casia", "--root", root, "--landmarks", tmp_path / "points.csv", "--json", store=tmp_path
    )  # fmt: skip
    skipped = {
        Path(source).parts[-3:-1]: s["reason"] for s in json.loads(run.stdout)["skipped"] for source in s["sources"]
    }
    assert skipped == {
        ("P001", "Anger"): "no row in the landmarks file",
        ("P002", "Fear"): "not a readable picture: empty, cut off or of another format",
        ("Strong", "P003"): "the expression's folder is missing",
    }
    table = succeed("prepare", "oulu-casia", "--root", root, "--landmarks", tmp_path / "points.csv", store=tmp_path)
    assert "no row in the landmarks" in table.stdout


def test_without_a_model_the_error_names_it_and_the_other_ways(drawn, tmp_path):
    line = refusal("prepare", "oulu-casia", "--root", drawn, store=tmp_path)
    for part in (
        MODEL_NAME,
        "OpenCV Zoo",
        MODEL_SHA256,
        "data detector get",
        "--detector",
        "--landmarks",
        "--cropped",
    ):
        assert part in line


def test_a_fetched_model_with_a_wrong_sum_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not the model")
    url = (tmp_path / "model.onnx").as_uri()
    line = refusal("detector", "get", "--url", url, store=tmp_path / "store")
    assert f"must have sha256 {MODEL_SHA256}, but has " in line
    assert list((tmp_path / "store/detector").iterdir()) == []


def test_wrong_requests_are_refused_in_one_line(drawn, tmp_path):
    points = drawn / "landmarks.csv"
    (tmp_path / "wrong.csv").write_text("file,x,y\na,1,2\n")
    lines = points.read_text().splitlines()
    windows = [lines[0], *(line.replace("/", "\\") for line in lines[1:])]
    (tmp_path / "windows.csv").write_text("\n".join(windows))
    (tmp_path / "empty.csv").write_text(lines[0])
    nested = pl.read_csv(points).with_columns(pl.concat_list("rex").alias("rex"))
    nested.write_parquet(tmp_path / "nested.PARQUET")
    (tmp_path / "gaps.csv").write_text("\n".join([lines[0], lines[1].rpartition(",")[0] + ",nan"]))
    (tmp_path / "twice.csv").write_text("\n".join([lines[0], lines[1], lines[1]]))
    oulu = ("prepare", "oulu-casia", "--root", drawn, "--store", tmp_path / "store")
    cases = {
        (
            "show",
            "oulu",
            "--root",
            drawn,
        ): "unknown data set 'oulu'; did you mean 'oulu-casia'? valid: oulu-casia, ck+, mmi, ferplus",
        ("show", "oulu-casia", "--root", drawn, "--votes", "label.csv"): "--votes belongs to another data set",
        ("synth", "ferplus", "--form", "jpg", "--out", tmp_path / "x"): "must be one of png, but got 'jpg'",
        ("synth", "ferplsu", "--out", tmp_path / "x"): "did you mean 'ferplus'?",
        ("show", "oulu-casia", "--root", tmp_path / "none"): "does not exist",
        (
            "show",
            "oulu-casia",
            "--root",
            tmp_path,
        ): "looked for VL/Strong/P001 and VL_Acropped/Strong/P001 in and below it, found empty.csv, gaps.csv",
        (*oulu, "--cropped", "--landmarks", points): "exclude each other, but got --landmarks --cropped",
        (*oulu, "--detector", tmp_path / "none.onnx"): "none.onnx",
        (
            *oulu,
            "--landmarks",
            tmp_path / "wrong.csv",
        ): "must have the columns source,rex,rey,lex,ley,nx,ny,rmx,rmy,lmx,lmy",
        (*oulu, "--landmarks", tmp_path / "gaps.csv"): f"the points of {lines[1].partition(',')[0]} are not",
        (*oulu, "--landmarks", tmp_path / "twice.csv"): "occurs twice",
        (*oulu, "--landmarks", tmp_path / "windows.csv"): "005.jpeg, but names none of them; it names OriginalImg\\VL",
        (*oulu, "--landmarks", tmp_path / "empty.csv"): "005.jpeg, but names none of them",
        (*oulu, "--landmarks", tmp_path / "nested.PARQUET"): "must be CSV or Parquet, but cannot be read: ",
    }
    for arguments, part in cases.items():
        assert part in refusal(*arguments)
    assert not (tmp_path / "store").exists()


def test_cropped_pictures_need_no_detector(drawn, tmp_path):
    run = succeed("prepare", "oulu-casia", "--root", drawn, "--cropped", "--json", store=tmp_path)
    made = json.loads(run.stdout)
    assert (made["num_faces"], made["settings"]["points"], made["synthetic"]) == (180, "cropped", True)


@pytest.mark.parametrize(
    ("name", "form"), [("ferplus", ""), ("ferplus", "png"), ("casia-webface", ""), ("casia-webface", "recordio")]
)
def test_the_pretraining_sets_go_the_same_way_in_every_form(name, form, tmp_path):
    options = ("--form", form) if form else ()
    succeed("synth", name, "--out", tmp_path / name, "--subjects", 6, *options)
    shown = json.loads(succeed("show", name, "--root", tmp_path / name, "--json").stdout)
    points = ["--landmarks", tmp_path / name / "landmarks.csv"] if (name, form) == ("casia-webface", "") else []
    made = json.loads(
        succeed("prepare", name, "--root", tmp_path / name, *points, "--json", store=tmp_path / "store").stdout
    )
    assert made["synthetic"]
    assert made["num_faces"] == shown["frames"] > 0
    assert made["subjects"] == [] if name == "ferplus" else len(made["subjects"]) == 6
    if not points:
        assert "cropped faces: leave --detector out" in refusal(
            "prepare", name, "--root", tmp_path / name, "--detector", MODEL
        )  # fmt: skip


FERPLUS = ROOT.parent / "shared/data/ferplus"


@pytest.mark.skipif(not FERPLUS.is_dir(), reason=f"no FER+ label files in {FERPLUS}")
def test_show_prints_the_published_counts_of_the_real_label_files_and_prepare_asks_for_pictures(tmp_path):
    shown = json.loads(succeed("show", "ferplus", "--root", FERPLUS, "--json").stdout)
    assert shown["splits"] == shown["label_sources"]["fer2013new.csv"] == {"train": 25060, "valid": 3199, "test": 3153}
    assert shown["label_sources"]["label.csv"] == {"train": 25045, "valid": 3191, "test": 3137}
    chosen = json.loads(succeed("show", "ferplus", "--root", FERPLUS, "--votes", "label.csv", "--json").stdout)
    assert (chosen["splits"], chosen["protocol"]["votes"]) == (shown["label_sources"]["label.csv"], "label.csv")
    assert "holds labels without pictures" in succeed("show", "ferplus", "--root", FERPLUS).stdout
    assert "holds labels without pictures: put" in refusal("prepare", "ferplus", "--root", FERPLUS, store=tmp_path)


def test_a_set_in_which_nothing_can_be_used_is_refused_with_the_first_reason(tmp_path):
    (tmp_path / "train.rec").write_bytes(bytes(1000))
    (tmp_path / "train.idx").write_text("0\t0\n1\t100\n")
    for command in (("show",), ("prepare", "--store", tmp_path / "store")):
        line = refusal(command[0], "casia-webface", "--root", tmp_path, *command[1:])
        assert "train.rec:0: no record there: it must start with the magic 0xced7230a" in line


def test_a_disk_that_is_full_is_named_and_room_is_all_that_a_preparation_needs(drawn, tmp_path):
    """No file may grow beyond 100 KiB, as on a disk where that much is left; the faces take a megabyte."""
    prepare = ("prepare", "oulu-casia", "--root", drawn, "--cropped")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 2**10, hard))
    try:
        run = data(*prepare, store=tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.splitlines()[-1] == (
        f"error: {tmp_path}/store/data/oulu-casia: File too large; "
        "what is done is kept: make room there and prepare again, it goes on"
    )
    made = json.loads(succeed(*prepare, "--json", store=tmp_path / "store").stdout)
    other = json.loads(succeed(*prepare, "--json", store=tmp_path / "other").stdout)
    assert made["data_id"] == other["data_id"]


def test_a_picture_that_is_there_under_two_people_or_in_two_splits_is_told(tmp_path):
    """One twice of the same person is no leak: frames of one sequence may be alike."""
    root = oulu_tree(tmp_path / "oulu", subjects=3, frames=3)
    strong = root / "VL/Strong"
    shutil.copy(strong / "P001/Fear/001.jpeg", strong / "P001/Fear/002.jpeg")
    prepare = ("prepare", "oulu-casia", "--root", root, "--cropped")
    assert "bit for bit" not in succeed(*prepare, store=tmp_path / "before").stdout
    shutil.copytree(strong / "P001/Anger", strong / "P003/Anger", dirs_exist_ok=True)
    for run in range(2):  # also where nothing is left to do
        said = succeed(*prepare, store=tmp_path / "after").stdout.splitlines()
        assert said[2].startswith(
            "3 faces are bit for bit those of another person or split, the first of "
            "VL/Strong/P001/Anger/000.jpeg and VL/Strong/P003/Anger/000.jpeg: "
        ), run
    ballots = [("Training", "a.png"), ("PublicTest", "b.png"), ("PrivateTest", "c.png")]
    fer_tables(tmp_path, [(usage, name, votes(fear=9)) for usage, name in ballots])
    lines = (tmp_path / "fer2013.csv").read_text().splitlines()
    lines[3] = lines[1].replace("Training", "PrivateTest")
    (tmp_path / "fer2013.csv").write_text("\n".join(lines))
    said = json.loads(succeed("prepare", "ferplus", "--root", tmp_path, "--json", store=tmp_path / "after").stdout)
    assert said["twins"] == {"count": 1, "sources": ["fer2013.csv:2", "fer2013.csv:4"]}


PASSES_EVERY_DOOR = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which every folder is open to root


def without_keys(*arguments):
    """`idenctl data …` by somebody to whom a closed folder is closed: exit status, what it printed, stderr's lines."""

    def give_them_back():
        c = ctypes.CDLL(None)
        for capability in PASSES_EVERY_DOOR:
            c.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, from the next program on

    command = [sys.executable, "-m", "idenctl", "data", *map(str, arguments)]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=give_them_back if os.geteuid() == 0 else None,
    )  # fmt: skip
    return run.returncode, run.stdout, run.stderr.splitlines()


@pytest.fixture
def closed():
    """A function that closes a folder until the test ends."""
    shut = []

    def close(folder):
        folder.chmod(0)
        shut.append(folder)

    yield close
    for folder in reversed(shut):
        folder.chmod(0o755)


CLOSED = {  # in the layout of each set: a folder, and what is lost with it
    "oulu-casia": ("OriginalImg/VL/Strong/P001", 6 * 3),
    "ck+": ("cohn-kanade-images/S010", 3),
    "mmi": ("Sessions/1", 3),
    "casia-webface": ("0000045", 1),
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_folder_that_nobody_may_read_costs_what_is_in_it_and_is_named(name, closed, tmp_path):
    """One beside the data set, as a disk has in its root, costs nothing."""
    place, lost = CLOSED[name]
    root = tmp_path / "set"
    lay_out(name, root / "copy")
    (root / "lost+found/0").mkdir(parents=True)
    closed(root / "lost+found")
    status, out, lines = without_keys("show", name, "--root", root, "--json")
    assert (status, json.loads(out)["frames"]) == (0, 2 * lost), lines
    assert f"warning: {root}/lost+found cannot be read (Permission denied): passed over" in lines
    closed(root / "copy" / place)
    status, out, lines = without_keys("show", name, "--root", root, "--json")
    shown = json.loads(out)
    assert (status, shown["frames"]) == (0, lost), lines
    assert {"reason": "cannot be read: Permission denied", "count": 1, "sources": [f"copy/{place}"]} in shown["skipped"]
    closed(root)
    status, out, lines = without_keys("show", name, "--root", root)
    assert (status, out, len(lines)) == (2, "", 1)
    assert f"path '{root}' is not readable" in lines[0]


def lay_out(name, root):
    """A data set of two people, or sessions, with pictures that show nothing."""

    def write(place, content=b""):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(content)

    if name == "oulu-casia":
        oulu_tree(root / "OriginalImg", subjects=2, frames=3)
    for person in ("S010", "S011") if name == "ck+" else ():
        write(f"Emotion/{person}/001/{person}_001_00000003_emotion.txt", b"3")
        for frame in (1, 2, 3):
            write(f"cohn-kanade-images/{person}/001/{person}_001_{frame:08}.png")
    for number in (1, 2) if name == "mmi" else ():
        write(f"Sessions/{number}/session.xml", b'<session><track view="0"/></session>')
        write(f"Sessions/{number}/S001-00{number}.xml", b'<a><Metatag Name="Emotion" Value="1"/></a>')
        write(f"Sessions/{number}/S001-00{number}.avi")
    for person in ("0000045", "0000046") if name == "casia-webface" else ():
        write(f"{person}/001.jpg")
