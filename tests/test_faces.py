import contextlib
import hashlib
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from idennet_core.datasets import oulu_casia
from idennet_core.datasets.synthetic.sets import synthesise
from idennet_core.faces.alignment import TEMPLATE, align, pad_cropped, similarity
from idennet_core.faces.detection import MAX_MODEL, Detector, Look, aside, choose, fetch, scales
from idennet_core.streams import generator
from orchestrator.cli.data import read_landmarks

MODEL = Path(__file__).parents[2] / "shared/models/yunet_s_dynamic.onnx"
needs_model = pytest.mark.skipif(not MODEL.exists(), reason=f"no YuNet model in {MODEL.parent}")


def turned(points, degrees, scale, shift):
    """Points rotated, scaled and shifted, worked out with a plain rotation matrix."""
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ rotation.T + shift


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


# alignment


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (17, 0.3), (-160, 2.5), (90, 10)])
def test_a_known_similarity_is_recovered(degrees, scale):
    points = turned(TEMPLATE, degrees, scale, (31, -7))
    matrix = similarity(points, TEMPLATE)
    np.testing.assert_allclose(apply(matrix, points), TEMPLATE, atol=1e-6)
    back = similarity(TEMPLATE, points)
    angle = np.radians(degrees)
    np.testing.assert_allclose(back[0], [scale * np.cos(angle), -scale * np.sin(angle), 31], atol=1e-6)


def test_no_other_similarity_comes_closer_to_points_that_do_not_fit():
    rng = generator("test", "similarity")
    points = turned(TEMPLATE, 12, 3, (50, 40)) + rng.normal(0, 5, (5, 2))
    best = similarity(points, TEMPLATE)

    def error(matrix):
        return np.square(apply(matrix, points) - TEMPLATE).sum()

    for step in rng.normal(0, 0.003, (200, 4)):
        other = best + np.array([(step[0], -step[1], 100 * step[2]), (step[1], step[0], 100 * step[3])])
        assert error(other) > error(best)


def test_the_template_stands_in_the_middle_sixty_of_eighty_pixels():
    left_eye = (73.5318 * 60 / 112 + 10, 51.5014 * 60 / 112 + 10)
    np.testing.assert_allclose(TEMPLATE[1], left_eye)
    assert (TEMPLATE > 10).all()
    assert (TEMPLATE < 70).all()


@pytest.mark.parametrize("scale", [0.7, 1.0, 3.3, 9.0])
def test_the_five_points_of_a_picture_come_to_the_template(scale):
    points = turned(TEMPLATE, 11, scale, (60, 45))
    side = int(points.max() + 40 * scale)
    y, x = np.mgrid[:side, :side]
    spots = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * (1.5 * scale) ** 2)) for px, py in points)
    face = align(np.round(200 * spots).astype(np.uint8), points).astype(float)
    assert face.shape == (80, 80)
    for px, py in TEMPLATE:
        left, top = round(px) - 4, round(py) - 4
        patch = face[top : top + 9, left : left + 9]
        rows, columns = np.mgrid[top : top + 9, left : left + 9]
        found = (patch * columns).sum() / patch.sum(), (patch * rows).sum() / patch.sum()
        np.testing.assert_allclose(found, (px, py), atol=0.1)


def test_shrinking_a_fine_pattern_gives_its_mean_not_an_alias():
    stripes = np.tile(np.array([0, 200], np.uint8), (1200, 600))
    face = align(stripes, TEMPLATE * 7.3 + 300)[5:-5, 5:-5]
    assert np.abs(face.astype(int) - 100).max() <= 15


def test_points_that_coincide_or_are_not_finite_are_refused():
    for points in (np.full((5, 2), 3.0), np.full((5, 2), np.nan)):
        with pytest.raises(ValueError, match="coincide or are not finite"):
            align(np.zeros((100, 100), np.uint8), points)


@pytest.mark.parametrize(
    ("scale", "reason"),
    [
        (4, "lie outside the picture"),  # points of a frame that was four times as large
        (-1, "lie outside the picture"),
        (1 / 320, "less than 2 pixels apart: the points must be in pixels, not shares"),  # as some detectors give them
    ],
)
def test_points_of_another_picture_or_unit_give_no_face(scale, reason):
    picture, points = np.zeros((240, 320), np.uint8), TEMPLATE * 2 + (80, 40)
    assert align(picture, points).shape == (80, 80)
    with pytest.raises(ValueError, match=reason):
        align(picture, points * scale)


def test_a_cropped_face_of_any_size_or_colour_is_sixty_pixels_with_its_border_around():
    ramp = np.tile(np.linspace(0, 240, 120, dtype=np.uint8), (120, 1))
    face = pad_cropped(cv2.cvtColor(ramp, cv2.COLOR_GRAY2BGR))
    assert (face[:, :10] == face[:, 10:11]).all()
    assert (face[:, 70:] == face[:, 69:70]).all()
    np.testing.assert_allclose(face[40, 10:70], ramp[0].reshape(60, 2).mean(1), atol=1)
    assert pad_cropped(ramp[:48, :48]).shape == (80, 80)


# detection


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two drawn people: the scan and the true points."""
    root = tmp_path_factory.mktemp("faces") / "oulu"
    synthesise("oulu-casia", root, subjects=2)
    return oulu_casia.scan(root), read_landmarks(root / "landmarks.csv")


@needs_model
def test_points_are_found_in_the_pictures_own_pixels_at_any_size(drawn):
    scan, truth = drawn
    detector = Detector(MODEL)
    picture = scan.pictures[0]
    image = scan.read(picture)
    points = detector(image)
    eyes_apart = np.linalg.norm(np.subtract(*truth[picture.source][:2]))
    assert np.linalg.norm(points - truth[picture.source], axis=1).mean() < eyes_apart / 5
    for factor in (2, 5, 12):  # searched at 320 pixels, the size of the picture itself
        large = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        np.testing.assert_allclose((detector(large) + 0.5) / factor - 0.5, points, atol=2)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    np.testing.assert_allclose(detector(grey), points, atol=2)


@needs_model
def test_a_small_face_in_a_large_picture_is_found_at_a_larger_size(drawn):
    scan, truth = drawn
    picture = scan.pictures[0]
    image = cv2.resize(scan.read(picture), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    scene = np.full((960, 1280, 3), 120, np.uint8)
    scene[500:560, 900:980] = image
    points = Detector(MODEL)(scene)
    np.testing.assert_allclose(points, (truth[picture.source] + 0.5) / 4 - 0.5 + (900, 500), atol=4)


@needs_model
def test_a_picture_without_a_face_gives_the_reason():
    assert Detector(MODEL)(np.full((240, 320, 3), 90, np.uint8)) == "no face found (best score below 0.1)"


def test_large_pictures_are_searched_small_first_and_never_enlarged():
    assert scales(240, 320) == [1.0]
    assert scales(490, 640) == [0.5, 1.0]
    assert scales(3000, 4000) == [320 / 4000, 640 / 4000, 1280 / 4000]


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


def test_a_turned_face_is_further_aside_than_a_frontal_one_whatever_its_roll():
    profile = TEMPLATE.copy()
    profile[2, 0] += 8  # the nose
    assert aside(TEMPLATE) < 0.01 < 0.3 < aside(profile)
    for degrees in (17, 90, 180):
        assert aside(turned(profile, degrees, 2, (30, 40))) == pytest.approx(aside(profile))


def test_of_several_faces_the_most_central_of_the_large_ones_is_taken():
    corner, centre, tiny = (0, 0, 90, 100), (110, 70, 80, 90), (150, 110, 20, 20)
    assert choose(np.array([corner, centre, tiny], float), 320, 240) == 1
    assert choose(np.array([corner, tiny], float), 320, 240) == 0


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="run `idenctl data detector get`"):
        Detector(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match="must be a YuNet model") as refusal:
        Detector(tmp_path / "text.onnx")
    assert "\n" not in str(refusal.value)


# fetching the model


@pytest.fixture
def server(tmp_path):
    """A local publisher: (URL, folder it serves)."""
    folder = tmp_path / "published"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        with contextlib.ExitStack() as stack:
            stack.callback(thread.join)
            stack.callback(http.shutdown)
            yield f"http://127.0.0.1:{http.server_port}", folder


def test_a_model_with_the_right_sum_is_stored(server, tmp_path):
    url, folder = server
    (folder / "model.onnx").write_bytes(b"weights" * 50_000)
    target = tmp_path / "store/detector/model.onnx"
    fetch(target, f"{url}/model.onnx", hashlib.sha256(b"weights" * 50_000).hexdigest())
    assert target.read_bytes() == b"weights" * 50_000
    assert list(target.parent.iterdir()) == [target]


def test_a_model_with_a_wrong_sum_is_refused_and_leaves_nothing_behind(server, tmp_path):
    url, folder = server
    (folder / "model.onnx").write_bytes(b"other weights")
    target = tmp_path / "store/model.onnx"
    target.parent.mkdir()
    target.write_bytes(b"the one before")
    with pytest.raises(ValueError, match=r"must have sha256 8f2383.*: not stored"):
        fetch(target, f"{url}/model.onnx")
    assert target.read_bytes() == b"the one before"
    assert list(target.parent.iterdir()) == [target]


def test_a_publisher_that_does_not_answer_is_named(server, tmp_path):
    url, _ = server
    with pytest.raises(ConnectionError, match=rf"{url}/none\.onnx cannot .*404.*give another --url"):
        fetch(tmp_path / "model.onnx", f"{url}/none.onnx")
    with pytest.raises(ConnectionError, match=r"cannot be fetched"):
        fetch(tmp_path / "model.onnx", "http://127.0.0.1:9/model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


@contextlib.contextmanager
def answering(*parts):
    """The URL of a server that sends these bytes to whoever asks, whatever HTTP says, and how many it could send."""
    sent = []

    def serve():
        with contextlib.suppress(OSError):  # whoever asked has had enough
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                for part in parts:
                    connection.sendall(part)
                    sent.append(len(part))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/model.onnx", sent
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH-2.0-OpenSSH_9.6"),
        (b"HTTP/1.1 banana\r\n\r\n", "banana"),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000 + b"\r\n\r\n", "got more than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "got more than 100 headers"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 60, "it ends 40 bytes early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n", "IncompleteRead"),
        (b"", "Remote end closed connection"),
    ],
    ids=["another protocol", "no status", "a long line", "many headers", "cut off", "no chunk", "nothing"],
)
def test_a_server_that_speaks_nonsense_is_a_download_that_failed(answer, reason, tmp_path):
    with answering(answer) as (url, _), pytest.raises(ConnectionError, match=rf"{url} cannot be fetched") as failure:
        fetch(tmp_path / "model.onnx", url)
    assert reason in str(failure.value)
    assert str(failure.value).endswith("try again or give another --url")
    assert len(str(failure.value)) < 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("head", [b"\r\n", b"Content-Length: 99999999999\r\n\r\n"], ids=["unannounced", "announced"])
def test_a_download_without_an_end_is_cut_at_its_limit(head, tmp_path):
    endless = [bytes(2**20)] * 500
    with (
        answering(b"HTTP/1.1 200 OK\r\n" + head, *endless) as (url, sent),
        pytest.raises(ValueError, match="must be a model of at most 16 MiB, but has more: give another --url"),
    ):
        fetch(tmp_path / "model.onnx", url)
    assert sum(sent) < 2 * MAX_MODEL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["model.onnx", "htp://host/model.onnx", "http://[::1/model.onnx"])
def test_what_is_no_address_is_refused_in_one_line(url, tmp_path):
    with pytest.raises((ValueError, ConnectionError)) as refusal:
        fetch(tmp_path / "model.onnx", url)
    assert "--url" in str(refusal.value)
    assert "\n" not in str(refusal.value)
