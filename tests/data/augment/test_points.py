"""Boxes and landmarks follow the pixels: marks are drawn into an image and found again after augmentation."""

import numpy as np
import pytest

from fastface.data.augment import Draws, apply_on_host, transform_boxes, transform_points
from fastface.data.augment.geometry import Affine, RandomResizedCrop
from fastface.data.augment.light import Colour
from fastface.data.augment.operator import Operator
from fastface.data.augment.points import LEFT_RIGHT
from tests.data.augment.photographs import draws_of

AFFINE = Affine(p=1.0, angle_degrees=(-40.0, 40.0), scale=(0.6, 1.4), shift=(-0.1, 0.1), aspect=(0.8, 1.25))
CROP = RandomResizedCrop(p=1.0, area=(0.4, 1.0), ratio=(0.5, 2.0))
# In a row the second finds what the first left in the image: only what nothing cuts can be measured.
SMALL_AFFINE = Affine(p=1.0, angle_degrees=(-15.0, 15.0), scale=(0.8, 1.0), shift=(-0.05, 0.05), aspect=(0.9, 1.1))
SMALL_CROP = RandomResizedCrop(p=1.0, area=(0.9, 1.0))
LISTS = {
    "flip": [],
    "affine": [AFFINE],
    "crop": [CROP],
    "both": [SMALL_CROP, Colour(p=1.0), SMALL_AFFINE],
    "twice": [SMALL_AFFINE, SMALL_AFFINE],
    "some": [SMALL_AFFINE.model_copy(update={"p": 0.5}), SMALL_CROP.model_copy(update={"p": 0.5})],
}
HEIGHT, WIDTH = 96, 120
LANDMARKS = np.array([[48.0, 40.0], [72.0, 41.0], [60.0, 52.0], [51.0, 64.0], [70.0, 65.0]])


def augmented(image: np.ndarray, draws: Draws, row: int) -> np.ndarray:
    result = image[None].copy()
    apply_on_host(result, draws.rows(row, row + 1))
    return result[0, :, ::-1] if draws.flip[row] else result[0]


def dot(x: float, y: float) -> np.ndarray:
    """Draw a soft white dot around (x, y) on black: uint8 [H, W, 3]."""
    down, across = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    light = 255 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * 2.0**2))
    return np.repeat(light.astype(np.uint8)[..., None], 3, 2)


def found(image: np.ndarray) -> np.ndarray:
    """Give the centre of light, x and y."""
    light = image[..., 1].astype(float)
    light[light < 5] = 0
    down, across = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.array([(across * light).sum(), (down * light).sum()]) / light.sum()


@pytest.mark.parametrize("operators", LISTS.values(), ids=LISTS)
def test_landmarks_are_where_their_pixels_are(operators: list[Operator]) -> None:
    quiet = [
        operator.model_copy(update={"saturation": (1.0, 1.0), "contrast": (1.0, 1.0), "hue_degrees": (0.0, 0.0)})
        if isinstance(operator, Colour)
        else operator
        for operator in operators
    ]
    draws = draws_of(*quiet, rows=12)
    seen = 0
    for row in range(12):
        moved = transform_points(draws, row, LANDMARKS, (WIDTH, HEIGHT))
        for before, after in zip(LANDMARKS, moved, strict=True):
            if (after > 12).all() and (after < [WIDTH - 12, HEIGHT - 12]).all():
                assert np.abs(found(augmented(dot(*before), draws, row)) - after).max() < 0.15
                seen += 1
    assert seen > 30


@pytest.mark.parametrize("operators", LISTS.values(), ids=LISTS)
def test_boxes_are_around_their_pixels(operators: list[Operator]) -> None:
    draws = draws_of(*[operator for operator in operators if not isinstance(operator, Colour)], rows=12)
    box = np.array([[30, 20, 70, 60], [100, 80, 130, 100]])  # the second reaches over the edge
    for row in range(12):
        (moved, other), (left, _) = transform_boxes(draws, row, box, (WIDTH, HEIGHT))
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[20:60, 30:70] = 255
        light = augmented(image, draws, row)[..., 0] > 127
        rows, columns = np.flatnonzero(light.any(1)), np.flatnonzero(light.any(0))
        expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(moved - expected).max() < 1.6  # a turned corner is thinner than a pixel
        assert 0 < left <= 1
        assert (other >= 0).all()
        assert (other <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()


def test_mirrored_targets_are_the_targets_of_the_mirrored_annotation() -> None:
    draws = Draws(np.array([True, False]))
    mirrored = transform_points(draws, 0, LANDMARKS, (WIDTH, HEIGHT), LEFT_RIGHT)
    assert mirrored.tolist() == [[48.0, 41.0], [72.0, 40.0], [60.0, 52.0], [50.0, 65.0], [69.0, 64.0]]
    assert np.array_equal(transform_points(draws, 1, LANDMARKS, (WIDTH, HEIGHT), LEFT_RIGHT), LANDMARKS)
    boxes, left = transform_boxes(draws, 0, np.array([[0, 10, 30, 50]]), (WIDTH, HEIGHT))
    assert (boxes.tolist(), left.tolist()) == ([[90, 10, 120, 50]], [1])
    again, _ = transform_boxes(draws, 0, boxes, (WIDTH, HEIGHT))
    assert again.tolist() == [[0, 10, 30, 50]]


def test_what_left_the_image_is_said() -> None:
    away = Affine(p=1.0, angle_degrees=(0.0, 0.0), scale=(1.0, 1.0), shift=(0.5, 0.5))
    draws = draws_of(away, rows=1)
    boxes, left = transform_boxes(
        draws, 0, np.array([[0, 0, 60, 48], [50, 38, 70, 58], [80, 60, 90, 70]]), (WIDTH, HEIGHT)
    )
    assert left.tolist() == [1.0, 0.25, 0.0]
    assert boxes[0].tolist() == [60, 48, 120, 96]


def test_arguments_are_not_changed_and_no_boxes_are_fine() -> None:
    draws = draws_of(AFFINE, rows=1)
    points = LANDMARKS.copy()
    transform_points(draws, 0, points, (WIDTH, HEIGHT), LEFT_RIGHT)
    assert np.array_equal(points, LANDMARKS)
    boxes, left = transform_boxes(draws, 0, np.empty((0, 4)), (WIDTH, HEIGHT))
    assert (boxes.shape, left.shape) == ((0, 4), (0,))
