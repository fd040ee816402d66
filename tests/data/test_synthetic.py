import csv
import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.data.synthetic import Identity, Shot, attributes, photograph, render
from fastface.data.synthetic.pose import Pose
from fastface.data.synthetic.relief import nose_shift
from fastface.data.synthetic.render import face_box, landmarks

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {
    "yaw": 0.0, "pitch": 0.0, "roll": 0.0, "x": 0.5, "y": 0.5, "scale": 0.4, "smile": 0.0, "mouth_open": 0.0,
    "eye_closure": 0.0, "gaze_x": 0.0, "gaze_y": 0.0, "light_x": 0.0, "light_y": -0.2, "ambient": 0.6,
    "exposure": 1.0, "shadow": 0.0, "hat": "none", "occluder": "none", "glasses": False, "sunglasses": False,
}  # fmt: skip
POSES = [(0, 0, 0), (25, 0, 0), (-25, 8, 0), (12, -14, 10), (-8, 14, -14)]


def _plain(identity, **changes):
    return dataclasses.replace(Shot.draw(0, identity, 0), **(PLAIN | changes))


def _take(seed, number, image, size=64):
    who = Identity.draw(seed, number)
    shot = Shot.draw(seed, who, image)
    return photograph(render(who, shot, size), shot)


def test_a_picture_depends_on_nothing_but_seed_identity_and_image():
    wanted = [(0, 5, 2), (0, 5, 3), (0, 6, 2), (1, 5, 2)]
    first = [_take(*key) for key in wanted]
    again = [_take(*key) for key in reversed(wanted)][::-1]
    assert first == again
    assert len(set(first)) == len(wanted)


def test_photograph_is_a_jpeg_close_to_the_drawing():
    who = Identity.draw(0, 1)
    shot = _plain(who, blur=0.0, motion=0.0, noise=0.0, quality=95)
    face = render(who, shot, 64)
    picture = Image.open(io.BytesIO(photograph(face, shot)))
    assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (64, 64))
    assert np.abs(np.asarray(picture, float) - face.image).mean() < 3


@pytest.mark.parametrize("change", [{"blur": 20.0}, {"motion": 60.0}])
def test_blur_takes_detail_but_keeps_brightness_and_place(change):
    who = Identity.draw(0, 1)
    sharp = _plain(who, blur=0.0, motion=0.0, noise=0.0, quality=95)
    face = render(who, sharp, 64)
    a, b = (
        np.asarray(Image.open(io.BytesIO(photograph(face, shot))), float).mean(axis=2)
        for shot in (sharp, dataclasses.replace(sharp, **change))
    )
    assert np.abs(np.diff(b)).sum() < 0.9 * np.abs(np.diff(a)).sum()
    assert abs(a.mean() - b.mean()) < 1.5
    shifts = {move: np.abs(np.roll(b, move, 1) - a).mean() for move in (-2, -1, 0, 1, 2)}
    assert min(shifts, key=shifts.__getitem__) == 0


def test_noise_has_the_stated_spread():
    who = Identity.draw(0, 1)
    shot = _plain(who, blur=0.0, motion=0.0, noise=6.0, quality=100)
    grey = render(who, shot, 64)._replace(image=np.full((64, 64, 3), 128, np.uint8))
    noisy = np.asarray(Image.open(io.BytesIO(photograph(grey, shot))), float)
    assert abs(noisy[..., 1].std() - 6.0) < 0.8  # green carries most of the luma, which JPEG keeps at full resolution


@pytest.mark.parametrize("pose", POSES)
def test_projection_agrees_with_the_pixels(pose):
    who = Identity.draw(0, 3)
    shot = _plain(who, yaw=pose[0], pitch=pose[1], roll=pose[2])
    place = Pose(who, shot, 64)
    frame = place.frame(256)
    for x, y in [(-0.28, 0.0), (0.28, 0.05), (0.0, -0.4), (0.2, 0.62), (-0.2, 0.62), (0.0, 0.9)]:
        distance = np.hypot(frame.x - x, frame.y - y)
        distance[frame.inside < 0] = np.inf
        row, column = np.unravel_index(np.argmin(distance), distance.shape)
        assert distance[row, column] < 0.03
        seen = (column + 0.5) / 4, (row + 0.5) / 4
        assert np.hypot(*np.subtract(seen, place.project(x, y))) < 0.6


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("number", [0, 9])
def test_eye_landmarks_lie_on_the_drawn_eyes(number, pose):
    who = Identity.draw(0, number)
    shot = _plain(who, yaw=pose[0], pitch=pose[1], roll=pose[2])
    marked = render(dataclasses.replace(who, iris=(0.0, 1.0, 0.0)), shot, 64)
    change = np.abs(marked.image.astype(float) - render(who, shot, 64).image).sum(axis=2)
    rows, columns = np.mgrid[0:64, 0:64] + 0.5
    for mine, other in ((0, 1), (1, 0)):
        near = np.hypot(columns - marked.landmarks[mine, 0], rows - marked.landmarks[mine, 1])
        far = np.hypot(columns - marked.landmarks[other, 0], rows - marked.landmarks[other, 1])
        weight = change * (near < far)
        centre = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        assert weight.sum() > 100
        assert np.hypot(*(centre - marked.landmarks[mine])) < 1.5


@pytest.mark.parametrize("pose", POSES)
def test_mouth_landmarks_lie_at_the_ends_of_the_drawn_lips(pose):
    who = dataclasses.replace(Identity.draw(0, 4), moustache=0.0, beard=0.0)
    shot = _plain(who, yaw=pose[0], pitch=pose[1], roll=pose[2], smile=0.6)
    marked = render(dataclasses.replace(who, lip=(0.0, 0.0, 1.0)), shot, 128)
    change = np.abs(marked.image.astype(float) - render(dataclasses.replace(who, lip=(1.0, 0.0, 0.0)), shot, 128).image)
    rows, columns = np.nonzero(change.sum(axis=2) > 60)
    points = np.stack([columns, rows], axis=1) + 0.5
    left, right = marked.landmarks[3:]
    axis = (right - left) / np.hypot(*(right - left))
    along = (points - left) @ axis
    assert abs(along.min()) < 3  # 1.5 px at 64
    assert abs(along.max() - np.hypot(*(right - left))) < 3


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("number", range(4))
def test_nose_landmark_lies_where_the_tip_is_drawn(number, pose):
    # Relief and paint both place the nose by nose_shift; undo it for each pixel and see where the tip is.
    who = Identity.draw(0, number)
    shot = _plain(who, yaw=pose[0], pitch=pose[1], roll=pose[2])
    place = Pose(who, shot, 64)
    frame = place.frame(256)
    shift_x, shift_y = nose_shift(who, place, frame.y)
    distance = np.hypot(frame.x - shift_x, frame.y - shift_y - who.nose_y)
    row, column = np.unravel_index(np.argmin(distance), distance.shape)
    seen = (column + 0.5) / 4, (row + 0.5) / 4
    assert np.hypot(*np.subtract(seen, landmarks(who, shot, place)[2])) < 1.5


def test_box_bounds_the_head_from_forehead_to_chin():
    for number, pose in enumerate(POSES):
        who = Identity.draw(0, number)
        place = Pose(who, _plain(who, yaw=pose[0], pitch=pose[1], roll=pose[2]), 64)
        frame = place.frame(128)
        rows, columns = np.nonzero((frame.inside > 0) & (frame.y > -0.58) & (frame.y < 0.99))
        slow = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 2
        assert np.abs(face_box(place) - slow).max() < 1.6


def test_landmarks_stay_in_the_box_and_the_picture():
    inside: list[bool] = []
    for number in range(60):
        who = Identity.draw(3, number)
        for image in range(4):
            shot = Shot.draw(3, who, image)
            place = Pose(who, shot, 64)
            points, (x0, y0, x1, y1) = landmarks(who, shot, place), face_box(place)
            assert 0 <= x0 < x1 <= 64
            assert 0 <= y0 < y1 <= 64
            inside += [bool(x0 < x < x1 and y0 < y < y1) for x, y in points.tolist()]
            assert points[0, 0] < points[1, 0]
            assert points[3, 0] < points[4, 0]
    assert np.mean(inside) > 0.99


@pytest.mark.parametrize("pose", POSES)
def test_a_mirrored_shot_mirrors_the_face(pose):
    # Without a parting, moles, stray strands and the shadow that hair and light throw, a head is symmetric.
    who = dataclasses.replace(Identity.draw(0, 2), part=0.0, moles=(), freckles=0.0, hair_style="bald", beard=0.0)
    shot = _plain(who, yaw=pose[0], pitch=pose[1], roll=pose[2], x=0.52, light_x=0.4, gaze_x=0.3)
    turned = dataclasses.replace(shot, yaw=-shot.yaw, roll=-shot.roll, x=0.48, light_x=-0.4, gaze_x=-0.3)
    a, b = render(who, shot, 64), render(who, turned, 64)
    swapped = b.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (64, 0)
    np.testing.assert_allclose(a.landmarks, swapped, atol=1e-3)
    np.testing.assert_allclose(a.box, np.array([64 - b.box[2], b.box[1], 64 - b.box[0], b.box[3]]), atol=1e-3)
    x0, y0, x1, y1 = (a.box + np.array([8, 12, -8, -8])).astype(int)
    difference = np.abs(a.image.astype(int) - b.image[:, ::-1])[y0:y1, x0:x1]
    assert np.median(difference) <= 3
    same = {"yaw", "roll"}
    kept = [{k: v for k, v in attributes(who, one).items() if k not in same} for one in (shot, turned)]
    assert kept[0] == kept[1]


def test_distinct_identities_differ_in_the_same_shot():
    people = [Identity.draw(0, number) for number in range(8)]
    faces = []
    for who in people:
        shot = dataclasses.replace(_plain(people[0]), identity=who.number, glasses=False)
        faces.append(render(who, shot, 64).image[12:56, 14:50].astype(float))
    for a in range(len(people)):
        for b in range(a):
            assert np.abs(faces[a] - faces[b]).mean() > 8


def test_raw_pixels_fail_to_tell_people_apart():
    identities, images = 16, 6
    pictures, labels = [], []
    for number in range(identities):
        for image in range(images):
            pictures.append(np.asarray(Image.open(io.BytesIO(_take(7, number, image))), float).ravel())
            labels.append(number)
    pixels = np.stack(pictures)
    pixels = (pixels - pixels.mean(axis=1, keepdims=True)) / pixels.std(axis=1, keepdims=True)
    pixels -= pixels.mean(axis=0)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    genuine, impostor = [], []
    for a in range(len(labels)):
        for b in range(a):
            (genuine if labels[a] == labels[b] else impostor).append(float(pixels[a] @ pixels[b]))
    genuine, impostor = np.array(genuine), np.array(impostor)
    accuracy = max(((genuine >= t).mean() + (impostor < t).mean()) / 2 for t in genuine)
    assert accuracy < 0.70  # on so small a sample; 0.61 on 60 identities x 20
    assert (genuine > np.quantile(impostor, 0.99)).mean() < 0.15


def test_errors_name_what_is_wrong():
    who = Identity.draw(0, 0)
    with pytest.raises(ValueError, match="seed -1"):
        Identity.draw(-1, 0)
    with pytest.raises(ValueError, match="size_px 8 "):
        render(who, Shot.draw(0, who, 0), 8)
    with pytest.raises(ValueError, match="belongs to identity 0"):
        render(Identity.draw(0, 1), Shot.draw(0, who, 0), 64)


def _tool(*arguments):
    command = [sys.executable, str(ROOT / "tools/make_faces.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_tool_writes_the_same_bytes_for_any_number_of_workers(tmp_path):
    common = ("--images", 4, "--size", 48, "--seed", 5)
    for workers in (1, 3):
        out = tmp_path / str(workers)
        done = _tool("--out", out, "--identities", 3, "--workers", workers, "--sheet", tmp_path / "sheet.png", *common)
        assert done.returncode == 0, done.stderr
    one, three = ({p.relative_to(d): p.read_bytes() for p in d.rglob("*.*")} for d in (tmp_path / "1", tmp_path / "3"))
    assert one == three
    assert len(one) == 13
    with open(tmp_path / "1/landmarks.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"id-{i:05d}/{k:04d}.jpg" for i in range(3) for k in range(4)]
    who = Identity.draw(5, 2)
    face = render(who, Shot.draw(5, who, 3), 48)
    assert abs(float(rows[-1]["nose_x"]) - face.landmarks[2, 0]) < 0.01
    assert rows[-1]["hair_style"] == who.hair_style
    assert Image.open(tmp_path / "sheet.png").size == (4 * 48, 3 * 48)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "1",
        "3",
        "sheet.png",
    ]  # no temporary folder is left


def test_tool_continues_a_population_and_refuses_to_overwrite(tmp_path):
    common = ("--out", tmp_path / "faces", "--images", 1, "--size", 48, "--seed", 5, "--workers", 1)
    assert _tool("--identities", 1, "--first", 2, *common).returncode == 0
    assert (tmp_path / "faces/id-00002/0000.jpg").read_bytes() == _take(5, 2, 0, 48)
    again = _tool("--identities", 1, *common)
    assert again.returncode == 1
    assert "not an empty folder" in again.stderr
    assert "Traceback" not in again.stderr


def test_drawing_needs_no_torch():
    code = "import sys, fastface.data.synthetic; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}).returncode == 0
