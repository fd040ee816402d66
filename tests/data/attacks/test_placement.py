"""The map between a held plane and the picture, and what is looked up through it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastface.data.synthetic.attacks.placement import DISTANCE, Placement, grid, in_plane, pooled, sample

PLACES = [
    Placement(),
    Placement(x=0.1, y=-0.05, zoom=1.2, roll=20),
    Placement(tilt=15, lean=-10, roll=5),
    Placement(bend=0.9, bend_axis=30),
    Placement(x=-0.02, zoom=0.9, roll=-7, tilt=8, lean=12, bend=0.5, bend_axis=-80),
]
POINTS = np.array([(0.0, 0.0), (0.3, 0.1), (-0.4, 0.35), (0.2, -0.45)])


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_to_plane_undoes_to_picture(place: Placement) -> None:
    seen = place.to_picture(POINTS).astype(np.float32)
    u, v, _ = place.to_plane(seen[:, 0], seen[:, 1])
    np.testing.assert_allclose(np.stack([u, v], axis=1), POINTS, atol=2e-6)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_point_is_seen_where_a_pinhole_camera_sees_it(place: Placement) -> None:
    """Bend, turn in the plane, about the vertical, about the horizontal axis, then project."""
    axis, roll, tilt, lean = (math.radians(a) for a in (place.bend_axis, place.roll, place.tilt, place.lean))
    for (u, v), seen in zip(POINTS.tolist(), place.to_picture(POINTS), strict=True):
        across, along = u * math.cos(axis) + v * math.sin(axis), v * math.cos(axis) - u * math.sin(axis)
        if place.bend:
            across = math.sin(across * place.bend) / place.bend
        u, v = across * math.cos(axis) - along * math.sin(axis), along * math.cos(axis) + across * math.sin(axis)
        x, y, z = u * math.cos(roll) - v * math.sin(roll), u * math.sin(roll) + v * math.cos(roll), 0.0
        x, z = x * math.cos(tilt) + z * math.sin(tilt), z * math.cos(tilt) - x * math.sin(tilt)
        y, z = y * math.cos(lean) - z * math.sin(lean), y * math.sin(lean) + z * math.cos(lean)
        near = DISTANCE / (DISTANCE + z)
        np.testing.assert_allclose(seen, (place.zoom * x * near + place.x, place.zoom * y * near + place.y), atol=1e-12)


def test_the_default_placement_shows_a_picture_as_it_is() -> None:
    planes = np.random.default_rng(0).random((3, 20, 30)).astype(np.float32)
    u, v, _ = Placement().to_plane(*grid((20, 30)))
    np.testing.assert_allclose(sample(planes, u, v), planes, atol=1e-4)


@pytest.mark.parametrize("span", [1.0, 1.25])
def test_sample_is_bilinear_and_mirrors_at_the_edges(span: float) -> None:
    rng = np.random.default_rng(1)
    planes = rng.random((3, 7, 9)).astype(np.float32)
    u, v = ((rng.random((2, 40)) - 0.5) * 1.6).astype(np.float32)
    got = sample(planes, u, v, span)

    def mirrored(k: int, length: int) -> int:
        k = -k if k < 0 else k
        return 2 * (length - 1) - k if k > length - 1 else k

    for k in range(len(u)):
        x, y = float(u[k]) * 7 / span + 4.0, float(v[k]) * 7 / span + 3.0
        column, row = math.floor(x), math.floor(y)
        want = np.zeros(3)
        for down in (0, 1):
            for right in (0, 1):
                share = (1 - abs(y - row - down)) * (1 - abs(x - column - right))
                want += share * planes[:, mirrored(row + down, 7), mirrored(column + right, 9)]
        np.testing.assert_allclose(got[:, k], want, atol=1e-5)


def test_pixels_of_a_picture_lie_where_its_grid_says() -> None:
    x, y = grid((4, 6), fine=2)
    middles = np.stack([x, y], axis=-1)
    for row in range(8):
        for column in range(12):
            want = in_plane(np.array([[(column + 0.5) / 2, (row + 0.5) / 2]]), (4, 6))[0]
            np.testing.assert_allclose(middles[row, column], want, atol=1e-6)


def test_pooled_averages_what_is_in_a_pixel() -> None:
    planes = np.random.default_rng(2).random((2, 6, 4))
    small = pooled(planes, 2)
    for channel in range(2):
        for row in range(3):
            for column in range(2):
                block = [planes[channel, 2 * row + a, 2 * column + b] for a in (0, 1) for b in (0, 1)]
                assert small[channel, row, column] == pytest.approx(sum(block) / 4)


def test_moved_adds_to_what_is_named() -> None:
    assert Placement(x=0.1, roll=2).moved(x=0.2, zoom=0.5) == Placement(x=0.1 + 0.2, roll=2, zoom=1.5)
