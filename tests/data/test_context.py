"""A face with its surroundings: always pixels of the image, as MiniFASNet cuts where the box's shape is kept."""

from __future__ import annotations

import numpy as np
import pytest

from fastface.data.context import Context, context_box, cut_context


def published(width: int, height: int, box: tuple[float, ...], scale: float) -> tuple[int, int, int, int]:
    """Do as Silent-Face-Anti-Spoofing's CropImage is described to: step by step, one edge after the other.

    The right and bottom pixel are part of the crop, so a slice ends one further.
    """
    x, y, wide, high = box[0], box[1], box[2] - box[0], box[3] - box[1]
    scale = min((height - 1) / high, min((width - 1) / wide, scale))
    x0 = (wide / 2 + x) - wide * scale / 2
    x1 = (wide / 2 + x) + wide * scale / 2
    y0 = (high / 2 + y) - high * scale / 2
    y1 = (high / 2 + y) + high * scale / 2
    if x0 < 0:
        x0, x1 = 0, x1 - x0
    if y0 < 0:
        y0, y1 = 0, y1 - y0
    if x1 > width - 1:
        x0, x1 = x0 - (x1 - width + 1), width - 1
    if y1 > height - 1:
        y0, y1 = y0 - (y1 - height + 1), height - 1
    return int(x0), int(y0), int(x1) + 1, int(y1) + 1


def boxes(count: int) -> list[tuple[int, int, tuple[float, ...]]]:
    """Draw images and boxes in them, at whole and at broken pixels."""
    rng = np.random.default_rng(0)
    drawn = []
    for k in range(count):
        width, height = rng.integers(20, 300, 2).tolist()
        (x0, x1), (y0, y1) = np.sort(rng.uniform(0, width, 2)), np.sort(rng.uniform(0, height, 2))
        box = np.array([x0, y0, x1 + 2, y1 + 2])
        drawn.append((width, height, tuple((box if k % 2 else box.round()).tolist())))
    return drawn


@pytest.mark.parametrize("scale", [1.0, 2.0, 2.7, 4.0])
def test_stretched_parts_are_those_of_the_published_code(scale: float) -> None:
    for width, height, box in boxes(300):
        part = context_box((width, height), np.array(box), Context(scale, stretched=True))
        assert tuple(part.tolist()) == published(width, height, box, scale), (width, height, box)


@pytest.mark.parametrize("scale", [1.0, 2.7, 4.0])
def test_squares_lie_in_the_image_around_the_box(scale: float) -> None:
    for width, height, box in boxes(300):
        left, top, right, bottom = context_box((width, height), np.array(box), Context(scale)).tolist()
        side = right - left
        assert bottom - top == side
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        wanted = scale * max(box[2] - box[0], box[3] - box[1])
        assert side == (int(wanted + 1e-9) + 1 if wanted <= min(width, height) - 1 else min(width, height))
        for first, end, near, far, edge in (
            (left, right, box[0], box[2], width),
            (top, bottom, box[1], box[3], height),
        ):
            off = (first + end) / 2 - (near + far) / 2  # of the middle of the square from the middle of the box
            assert abs(off) <= 1 or (off > 0 and first == 0) or (off < 0 and end >= edge - 1)


def test_a_target_that_is_no_square_gets_parts_of_its_shape() -> None:
    part = context_box((400, 300), np.array([100.0, 100, 140, 150]), Context(2.0), 96 / 112)
    assert (part[2:] - part[:2]).tolist() == [int(2 * 50 * 96 / 112) + 1, 101]


def test_pictures_without_a_size_are_the_pixels_themselves() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    picture, part = cut_context(image, np.array([20.0, 20, 30, 32]), Context(2.7), None)
    assert part.tolist() == [8, 9, 41, 42]
    np.testing.assert_array_equal(picture, image[9:42, 8:41])
    again, _ = cut_context(image, np.array([20.0, 20, 30, 32]), Context(2.7), (33, 33))
    np.testing.assert_array_equal(again, picture)
    small, _ = cut_context(image, np.array([20.0, 20, 30, 32]), Context(2.7), (11, 11))
    assert small.shape == (11, 11, 3)
    inner = picture.astype(float)[15:18, 15:18].mean(axis=(0, 1))  # its own pixels weigh most in the middle one
    assert np.abs(small[5, 5] - inner).max() < 40


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [5, 9, 9, 5], [np.nan, 0, 1, 1]])
def test_boxes_without_an_area_are_refused(box: list[float]) -> None:
    with pytest.raises(ValueError, match="must have x0 < x1"):
        context_box((20, 20), np.array(box, float), Context(2.0))


def test_a_context_is_remembered_as_text() -> None:
    for context in (Context(1.0), Context(2.7), Context(4.0, stretched=True)):
        assert Context.parse(str(context)) == context
    assert str(Context(2.7)) == "context-2.7"
    assert [Context.parse(text) for text in (None, 0.45, "box", "five-point", "context-x")] == [None] * 5
