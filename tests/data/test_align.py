"""Alignment: the map that least squares gives, and pictures that an exact filter would make."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from fastface.data.align import (
    TEMPLATE_112,
    enlarged,
    fitted,
    shrunk,
    similarity,
    template,
    warp,
)
from fastface.data.geometry import move_boxes, move_points


def turned(degrees: float, scale: float, move: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[a, -b, move[0]], [b, a, move[1]]])


def least_squares(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Solve for a, b, c, d of x' = ax - by + c, y' = bx + ay + d by the normal equations, point by point."""
    rows, values = [], []
    for (x, y), (u, v) in zip(points, targets, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])


def test_similarity_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 5, 9):
        points, targets = rng.uniform(0, 250, (n, 2)), rng.uniform(0, 112, (n, 2))
        assert np.allclose(similarity(points, targets), least_squares(points, targets), atol=1e-9)
    matrix = turned(33, 0.4, (5, -7))
    assert np.allclose(similarity(points, move_points(points, matrix)), matrix)


@pytest.mark.parametrize("bad", [np.ones((5, 2)), np.full((5, 2), np.nan), np.full((5, 2), np.inf)])
def test_landmarks_that_span_nothing_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="do not span a face"):
        similarity(bad, TEMPLATE_112)


def test_templates_of_other_sizes_show_the_same() -> None:
    assert np.allclose(template((112, 112)), TEMPLATE_112)
    narrow = [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
    assert np.allclose(template((96, 112)) - 0.5, narrow)  # as SphereFace published it
    assert np.allclose(template((160, 160)), TEMPLATE_112 * 160 / 112)


def test_boxes_grow_about_their_centre_and_fit_into_the_middle() -> None:
    box = np.array([10.0, 20, 50, 100])  # 40 x 80
    assert enlarged(box, 0.25).tolist() == [5, 10, 55, 110]
    assert enlarged(box, 0.0, 1.0).tolist() == [-10, 20, 70, 100]
    assert enlarged(box, 0.0, 0.25).tolist() == [10, -20, 50, 140]
    assert move_boxes(box, fitted(box, (100, 40))).tolist() == [40, 0, 60, 40]
    assert np.allclose(move_boxes(box, turned(90, 2.0)), [-200, 20, -40, 100])


# One operator


def reference(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Weigh every pixel near a pixel of the result by the triangle filter, in the result's own axes; slow and exact."""
    height, width = image.shape[:2]
    scale = math.sqrt(np.linalg.det(matrix[:, :2]))
    shrink, radius = min(scale, 1.0), max(1 / scale, 1.0)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    turn = matrix[:, :2] / scale if scale < 1 else np.eye(2)  # interpolation has the axes of the image
    result = np.zeros((size[1], size[0], 3))
    reach = math.ceil(radius * math.sqrt(2)) + 1
    for row in range(size[1]):
        for column in range(size[0]):
            x, y, _ = back @ [column + 0.5, row + 0.5, 1]
            xs = np.arange(math.floor(x) - reach, math.floor(x) + reach + 1)
            ys = np.arange(math.floor(y) - reach, math.floor(y) + reach + 1)
            gx, gy = np.meshgrid(xs + 0.5 - x, ys + 0.5 - y)
            away = np.stack([gx, gy], -1) @ turn.T * shrink
            weight = np.clip(1 - np.abs(away), 0, None).prod(-1)
            inside = ((xs >= 0) & (xs < width))[None] & ((ys >= 0) & (ys < height))[:, None]
            pixels = image[np.clip(ys, 0, height - 1)][:, np.clip(xs, 0, width - 1)] * inside[..., None]
            result[row, column] = (pixels * weight[..., None]).sum((0, 1)) / weight.sum()
    return result


def textured(side: int) -> np.ndarray:
    """Draw waves of all lengths down to 3 px and hard edges, uint8 [side, side, 3]."""
    y, x = np.mgrid[:side, :side] / side
    waves = sum(np.sin(2 * np.pi * k * (x * math.cos(k) + y * math.sin(k))) / 4 for k in (3, 7, side / 9, side / 3))
    edges = np.where((x * 5).astype(int) % 2 == (y * 5).astype(int) % 2, 60, -60)
    base = np.clip(128 + 40 * waves + edges, 0, 255)
    return np.stack([base, base[::-1], base.T], axis=2).astype(np.uint8)


@pytest.mark.parametrize("scale", [0.05, 0.11, 0.3, 0.6, 0.98, 1.0, 1.7])
@pytest.mark.parametrize("degrees", [0, 17])
def test_warping_is_nearly_the_exact_filter(scale: float, degrees: float) -> None:
    size = (20, 16)
    image = textured(int(min(24 / scale, 500)) + 16)
    centre = np.array(image.shape[1::-1]) / 2 + 0.3
    matrix = turned(degrees, scale)
    matrix[:, 2] = np.array(size) / 2 - matrix[:, :2] @ centre
    difference = warp(image, matrix, size).astype(float) - reference(image, matrix, size)
    assert abs(difference.mean()) < 1  # Pillow cuts fractions off
    assert np.sqrt((difference**2).mean()) < (1.6 if scale >= 1 else 6)  # of a contrast of 50, much of it near 2 px


def test_shrinking_strongly_leaves_no_alias() -> None:
    """2000 px to 112: stripes of 3 px, which every 18th pixel would turn into broad bands, become even grey."""
    y, x = np.mgrid[:2000, :2000]
    image = np.repeat((((x + y) // 3) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    matrix = turned(10, 112 / 2400)
    matrix[:, 2] = 56 - matrix[:, :2] @ [1000, 1000]
    middle = warp(image, matrix, (112, 112))[24:88, 24:88].astype(float)
    assert abs(middle.mean() - 127.5) < 1
    assert middle.std() < 2
    picked = np.asarray(Image.fromarray(image).transform((112, 112), Image.Transform.AFFINE, (18, 1, 0, 1, 18, 0), 2))
    assert picked[24:88, 24:88].std() > 30  # what plain bilinear interpolation does to it


def test_what_stays_as_it_is_keeps_its_pixels_and_outside_is_black() -> None:
    image = textured(40)
    assert np.array_equal(warp(image, turned(0, 1.0), (40, 40)), image)
    shifted = warp(image, turned(0, 1.0, (10, 0)), (40, 40))
    assert np.array_equal(shifted[:, 10:], image[:, :30])
    assert not shifted[:, :10].any()


def test_upright_shrinking_is_pillows() -> None:
    image = textured(250)
    ours = warp(image, turned(0, 112 / 250), (112, 112)).astype(float)
    theirs = np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BILINEAR)).astype(float)
    assert np.sqrt(((ours - theirs) ** 2).mean()) < 1.5


@pytest.mark.parametrize(("width", "height"), [(2001, 999), (641, 640), (640, 480), (3, 5000)])
def test_shrunk_images_say_where_their_pixels_were(width: int, height: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 2 :, :, 0] = 200
    small, back = shrunk(image, 640)
    assert max(small.shape[:2]) <= 640
    edge = 0.5 + np.abs(np.diff(small[:, 0, 0].astype(int))).argmax() if len(small) > 1 else 0
    assert abs(move_points(np.array([0, edge + 0.5]), back)[1] - height // 2) <= back[0, 0]
    assert np.array_equal(shrunk(image, None)[0], image)
