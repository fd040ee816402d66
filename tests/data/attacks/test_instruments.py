"""What paper, inks, displays and the camera leave in a picture, each on its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastface.data.synthetic.attacks.placement import Placement
from fastface.data.synthetic.attacks.printing import ANGLES, Printer, draw_printer, printed
from fastface.data.synthetic.attacks.recapture import Camera, draw_camera, meter, take
from fastface.data.synthetic.attacks.screen import draw_display, shown
from fastface.data.synthetic.attacks.sheet import draw_edges, draw_room, ending_with, in_room

SIDE = 96
SHAPE = (SIDE, SIDE)


def grey(level: float) -> np.ndarray:
    return np.full((3, SIDE, SIDE), level, np.float32)


def spectrum(plane: np.ndarray) -> np.ndarray:
    """Return the strength of the waves in a plane, without its mean: [SIDE, SIDE]."""
    window = np.hanning(SIDE)
    return np.abs(np.fft.fft2((plane - plane.mean()) * window * window[:, None]))


def peak(plane: np.ndarray) -> tuple[float, float]:
    """Return down and across of the strongest wave in cycles a pixel, the sign left out."""
    strength = spectrum(plane)
    row, column = np.unravel_index(np.argmax(strength), strength.shape)
    return abs(float(np.fft.fftfreq(SIDE)[row])), abs(float(np.fft.fftfreq(SIDE)[column]))


def printer(screen: str, **changes: object) -> Printer:
    plain = {"fibre": 0.0, "banding": 0.0, "turn": 0.0, "paper": (1.0, 1.0, 1.0), "gain": 0.0}
    return dataclasses.replace(draw_printer(np.random.default_rng(3), screen), **(plain | changes))


@pytest.mark.parametrize("period", [3.0, 4.0])
def test_black_dots_stand_where_the_screen_puts_them(period: float) -> None:
    made = printed(grey(0.6), printer("dots", period_px=period, black=1.0, depth=1.0), Placement(), SHAPE, 0)
    down, across = peak(made.mean(axis=0))
    turn = np.radians(ANGLES[3])
    assert np.hypot(down, across) == pytest.approx(1 / period, abs=1.5 / SIDE)
    assert (down, across) == pytest.approx((abs(np.sin(turn)) / period, abs(np.cos(turn)) / period), abs=1.5 / SIDE)


@pytest.mark.parametrize("screen", ["dots", "spray", "none"])
def test_prints_of_lighter_greys_are_lighter_and_have_less_range(screen: str) -> None:
    levels = [0.0, 0.25, 0.5, 0.75, 1.0]
    means = [float(printed(grey(level), printer(screen), Placement(), SHAPE, 5).mean()) for level in levels]
    assert means == sorted(means)
    assert means[0] > 0.04
    assert means[-1] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("screen", ["dots", "spray", "none"])
def test_prints_have_a_smaller_gamut(screen: str) -> None:
    red = grey(0.0)
    red[0] = 1.0
    made = printed(red, printer(screen), Placement(), SHAPE, 0).mean(axis=(1, 2))
    assert made[0] > made[1:].max()
    assert made.max() - made.min() < 0.9


def test_a_bent_sheet_is_shaded_and_a_flat_one_is_not() -> None:
    flat, bent = (
        printed(grey(0.5), printer("none"), Placement(bend=bend), SHAPE, 0).mean(axis=0) for bend in (0.0, 1.0)
    )
    assert flat.std() < 1e-4
    columns = bent.mean(axis=0)
    assert columns.max() - columns.min() > 0.03
    assert bent.std(axis=0).max() < 1e-4  # the axis stands upright


@pytest.mark.parametrize("pitch", [0.93, 1.07, 1.4, 2.6, 0.52])
def test_a_displays_grid_comes_back_as_the_moire_of_the_two_grids(pitch: float) -> None:
    """1/pitch cycles a pixel are seen as their distance to the nearest whole number of cycles."""
    display = dataclasses.replace(
        draw_display(np.random.default_rng(0), "tablet"),
        pitch_px=pitch, depth=0.15, curve=0.0, band=0.0, glow=0.0, contrast=1.0, gamma=1.0,
    )  # fmt: skip
    made = shown(grey(0.5), display, Placement(), SHAPE, 0.0)
    alias = abs(1 / pitch - round(1 / pitch))
    down, across = peak(made[1] - made[1].mean(axis=1, keepdims=True))
    assert (down, across) == pytest.approx((0.0, alias), abs=1.5 / SIDE)


def test_the_refresh_band_moves_with_its_phase() -> None:
    display = dataclasses.replace(
        draw_display(np.random.default_rng(0), "monitor"), band=0.2, band_period=1.0, depth=0.0, glow=0.0
    )
    rows = [shown(grey(0.5), display, Placement(), SHAPE, phase).mean(axis=(0, 2)) for phase in (0.0, 0.25)]
    np.testing.assert_allclose(np.roll(rows[0], -SIDE // 4), rows[1], atol=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_beyond_the_sheet_is_the_room(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sheet = dataclasses.replace(
        draw_edges(rng, SHAPE, (0.02, 0.02), (1.0, 0.0, 1.0), seen=1.0), left=-0.2, top=-0.3, right=0.25, bottom=0.1
    )
    room = dataclasses.replace(draw_room(rng, SHAPE, sheet, gloss=0.0), slope=0.0, glare=0.0, fingers=())
    scene = in_room(grey(0.5), Placement(), room)
    for row in range(0, SIDE, 5):
        for column in range(0, SIDE, 5):
            u, v = (column + 0.5) / SIDE - 0.5, (row + 0.5) / SIDE - 0.5
            inside = min(u + 0.2, 0.25 - u, v + 0.3, 0.1 - v)
            if inside > 0.02:
                assert scene[:, row, column] == pytest.approx([0.5] * 3)
            elif -0.01 > inside > -0.012:
                assert scene[:, row, column] == pytest.approx([1.0, 0.0, 1.0])
            elif inside < -0.09:
                assert scene[:, row, column] == pytest.approx(room.behind[:, row, column])


def test_a_sheet_ends_at_the_latest_where_its_picture_does() -> None:
    edges = dataclasses.replace(
        draw_edges(np.random.default_rng(0), SHAPE, (0.0, 0.1), (1.0, 1.0, 1.0), seen=0.0), right=0.3
    )
    ended = ending_with((40, 60), edges)
    assert (ended.left, ended.top, ended.right, ended.bottom) == (-0.75, -0.5, 0.3, 0.5)
    assert ended.border == edges.border


def still_camera(**changes: object) -> Camera:
    plain = {"noise": 0.0, "blur": 0.0, "motion": 0.0, "vignette": 0.0, "cast": (1.0, 1.0, 1.0), "quality": 98}
    return dataclasses.replace(draw_camera(0, 0, 0, 0), **(plain | changes))


def test_the_camera_meters_away_most_of_brightness_contrast_and_colour() -> None:
    rng = np.random.default_rng(0)
    scene = 0.35 + 0.15 * np.kron(rng.random((3, 8, 8)), np.ones((12, 12))).astype(np.float32)
    camera = still_camera(level=0.45, spread=0.2)
    warm = np.array([1.3, 1.0, 0.8], np.float32)[:, None, None]
    scenes = [scene, scene * 0.5, scene * 0.5 + 0.4, scene * warm]
    taken = [take(one, camera, np.random.default_rng(1)).astype(float) / 255 for one in scenes]
    for one, image in zip(scenes, taken, strict=True):
        assert abs(image.mean() - 0.45) < 0.05
        assert abs(image.mean() - taken[0].mean()) <= max(0.35 * abs(one.mean() - scene.mean()), 0.02)
    before = np.ptp(scenes[3].mean(axis=(1, 2))) / scenes[3].mean(axis=0).std()
    after = np.ptp(taken[3].mean(axis=(0, 1))) / taken[3].mean(axis=2).std()
    assert after < 0.3 * before


def test_an_exposure_that_is_kept_shows_what_changes() -> None:
    camera = still_camera()
    scene = np.random.default_rng(0).random((3, SIDE, SIDE)).astype(np.float32)
    kept = meter(scene, camera)
    bright, dark = (take(scene * gain, camera, np.random.default_rng(1), kept).mean() for gain in (1.0, 0.8))
    assert bright - dark > 10
