"""Boxes and landmarks go where the pixels go."""

from __future__ import annotations

import numpy as np
import pytest

from fastface.data.geometry import Faces, cut_matrix, move_boxes, move_points, place_boxes
from fastface.data.images import ImageSpec, load_rgb, prepare
from tests.data.badfiles import encode, with_exif


@pytest.mark.parametrize(
    ("spec", "box"),
    [
        (ImageSpec(), None),
        (ImageSpec(size=(50, 40)), None),
        (ImageSpec(size=(48, 48), crop=0.8), None),
        (ImageSpec(crop=0.7), None),
        (ImageSpec(size=(60, 60)), (15, 20, 95, 100)),
        (ImageSpec(), (20.4, 19.7, 100, 110)),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_painted_square_is_found_where_its_box_says(spec: ImageSpec, box: tuple | None, orientation: int) -> None:
    image = np.zeros((120, 110, 3), np.uint8)
    image[50:80, 40:60] = 255
    square = np.array([40, 50, 60, 80], np.float32)
    if orientation == 6:  # stored turned: upright it is what was drawn above
        data = with_exif(encode(np.rot90(image), quality=98), 6)
    else:
        data = encode(image, quality=98)
    crop = None if box is None else np.array(box, np.float32)
    stored = prepare(data, spec, crop)
    pixels = load_rgb(stored.data)[..., 0].astype(float)
    x0, y0, x1, y1 = move_boxes(square, stored.matrix)
    inside = pixels > 127
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    assert abs(columns[0] - x0) <= 1
    assert abs(columns[-1] + 1 - x1) <= 1
    assert abs(rows[0] - y0) <= 1
    assert abs(rows[-1] + 1 - y1) <= 1
    assert inside.sum() == pytest.approx((x1 - x0) * (y1 - y0), rel=0.1)


def test_points_follow_any_affine_map() -> None:
    matrix = (0.5, -0.25, 3.0, 0.25, 0.5, -1.0)
    points = np.random.default_rng(0).uniform(-50, 50, (7, 5, 2))
    moved = move_points(points, matrix)
    for i in range(7):
        for k in range(5):
            x, y = points[i, k]
            expected = (0.5 * x - 0.25 * y + 3, 0.25 * x + 0.5 * y - 1)
            np.testing.assert_allclose(moved[i, k], expected, rtol=1e-5, atol=1e-5)
    corners = move_points(np.array([[0, 0], [4, 0], [4, 2], [0, 2]]), matrix)
    box = move_boxes(np.array([0, 0, 4, 2], np.float32), matrix)
    np.testing.assert_allclose(box, [*corners.min(axis=0), *corners.max(axis=0)])


def test_boxes_are_clipped_counted_and_refused_by_reason() -> None:
    boxes = np.array(
        [
            [0, 0, 10, 10],
            [-5, 2, 6, 9],
            [8, 8, 8, 12],
            [9, 9, 4, 12],
            [30, 0, 40, 5],
            [np.nan, 0, 1, 1],
            [0, 0, 99, 99],
        ],
        np.float32,
    )
    placed = place_boxes(boxes, cut_matrix((0, 0, 20, 20), 40, 20), 40, 20)
    assert placed.boxes.tolist() == [[0, 0, 20, 10], [0, 2, 12, 9], [0, 0, 40, 20]]
    assert placed.kept.tolist() == [True, True, False, False, False, False, True]
    assert placed.reasons == ["box-empty", "box-empty", "box-outside", "box-empty"]
    assert placed.clipped == 2
    assert place_boxes(np.zeros((0, 4), np.float32), (1, 0, 0, 0, 1, 0), 5, 5).boxes.shape == (0, 4)


def test_faces_of_chosen_images_are_what_a_loop_finds() -> None:
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 4, 30)
    start = np.concatenate([[0], np.cumsum(counts)])
    faces = Faces(start, rng.uniform(size=(start[-1], 4)).astype(np.float32), {"blur": np.arange(start[-1])})
    keep = rng.permutation(30)[:12]
    part = faces.take(keep)
    for k, i in enumerate(keep):
        np.testing.assert_array_equal(
            part.boxes[part.start[k] : part.start[k + 1]], faces.boxes[start[i] : start[i + 1]]
        )
        assert part.attributes["blur"][part.start[k] : part.start[k + 1]].tolist() == list(
            range(start[i], start[i + 1])
        )
    assert part.start[-1] == len(part.boxes)
