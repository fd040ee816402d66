"""Clips: a genuine head moves in space and blinks, still and planar pictures are one plane's."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from fastface.data.synthetic import Identity
from fastface.data.synthetic.attacks import Key
from fastface.data.synthetic.attacks.clips import CLIPS, Clip, _acted, _blinks, film
from fastface.data.synthetic.draws import MOTION, generator

SIDE = 40


@cache
def clip(kind: str, number: int = 0, num_frames: int = 6, fps: float = 4.0) -> Clip:
    return film(kind, Identity.draw(0, number), Key(0, number, 500), SIDE, num_frames, fps)


def fit_error(points: np.ndarray, targets: np.ndarray) -> float:
    """Fit the homography that takes points [N, 2] to targets by DLT, and return its root mean square error."""
    a, b = (((p - p.mean(axis=0)) / p.std()) for p in (points.astype(float), targets.astype(float)))
    rows = []
    for (x, y), (u, v) in zip(a.tolist(), b.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y, -u], [0, 0, 0, x, y, 1, -v * x, -v * y, -v]]
    matrix = np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)
    seen = np.column_stack([a, np.ones(len(a))]) @ matrix.T
    return float(np.sqrt(((seen[:, :2] / seen[:, 2:] - b) ** 2).mean())) * float(targets.std())


def residuals(taken: Clip) -> list[float]:
    return [fit_error(taken.landmarks[0], points) for points in taken.landmarks[1:]]


@pytest.mark.parametrize("kind", CLIPS)
def test_a_clip_depends_on_nothing_but_its_key(kind: str) -> None:
    one = clip(kind)
    two = film(kind, Identity.draw(0, 0), Key(0, 0, 500), SIDE, 6, 4.0)
    np.testing.assert_array_equal(one.frames, two.frames)
    assert one.frames.shape == (6, SIDE, SIDE, 3)
    assert one.frames.dtype == np.uint8
    assert one.times.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    other = film(kind, Identity.draw(0, 0), Key(0, 0, 501), SIDE, 1, 4.0)
    assert not np.array_equal(other.frames[0], one.frames[0])


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("kind", ["still", "planar"])
def test_the_landmarks_of_a_flat_picture_move_by_homographies(kind: str, number: int) -> None:
    taken = clip(kind, number)
    assert max(residuals(taken)) < 1e-3
    travel = np.abs(taken.landmarks - taken.landmarks[0]).max()
    assert travel > 0.05
    assert (travel < 1.0) == (kind == "still")


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("kind", ["genuine", "video"])
def test_the_landmarks_of_a_head_do_not(kind: str, number: int) -> None:
    assert max(residuals(clip(kind, number))) > 0.03


def test_pixels_of_a_planar_clip_follow_its_landmarks() -> None:
    """What is around an eye in the first frame is around it in every other, but for what turns and shears it."""
    taken = film("planar", Identity.draw(0, 6), Key(0, 6, 500), 96, 5, 4.0)

    def around(frame: int, point: np.ndarray) -> np.ndarray:
        x, y = np.rint(point).astype(int)
        return taken.frames[frame, y - 8 : y + 8, x - 8 : x + 8].astype(float).mean(axis=2).ravel()

    for k in range(1, 5):
        for mark in (0, 1, 3, 4):
            follows = np.corrcoef(around(0, taken.landmarks[0, mark]), around(k, taken.landmarks[k, mark]))[0, 1]
            assert follows > 0.8


def test_people_blink_about_every_two_seconds_and_never_for_long() -> None:
    times = np.arange(0, 600, 1 / 60)
    closed = _blinks(np.random.default_rng(0), times)
    shut = closed > 0.99
    starts = np.flatnonzero(shut[1:] & ~shut[:-1])
    assert 200 < len(starts) < 340  # 300 expected, some in one
    assert 0.02 < shut.mean() < 0.08
    assert closed.min() == 0.0


def test_lids_close_in_some_genuine_clips_and_open_again() -> None:
    times = np.arange(18) / 12
    blinks = 0
    for number in range(40):
        who = Identity.draw(0, number)
        shots = _acted(who, Key(0, number, 500), generator(0, number, 500, MOTION), times)
        lids = np.array([shot.eye_closure for shot in shots])
        blinks += bool(np.ptp(lids) > 0.3)
        assert all(shot.mouth_open >= 0 for shot in shots)
    assert 12 < blinks < 32


def test_a_clip_at_twice_the_rate_has_the_same_moments() -> None:
    slow, fast = clip("genuine", 0, 4, 4.0), clip("genuine", 0, 7, 8.0)
    np.testing.assert_allclose(fast.landmarks[::2], slow.landmarks, atol=1e-4)


def test_still_frames_differ_least() -> None:
    change = {
        kind: np.mean([np.abs(np.diff(clip(kind, n).frames.astype(float), axis=0)).mean() for n in range(3)])
        for kind in CLIPS
    }
    assert change["still"] < change["genuine"]
    assert change["still"] < change["planar"]


def test_errors_name_what_is_wrong() -> None:
    who = Identity.draw(0, 0)
    with pytest.raises(ValueError, match=r"'planer'.*planar"):
        film("planer", who, Key(0, 0, 0), SIDE)
    with pytest.raises(ValueError, match="at most 655"):
        film("still", who, Key(0, 0, 0), 700)
