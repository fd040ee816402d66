"""A person and a key -> frames of a genuine clip, or of an attack whose single frames may be as good as live ones.

A genuine head turns, sways before a background that stands still, blinks, and speaks; light moves over it. Attacks show
the same person at one moment of such a clip, or all of it:

    still     the photograph of one moment, held still: nothing but the camera's shake and noise
    planar    the same, moved: the whole picture is mapped by one homography
    warp      a print, moved and bent
    video     the clip replayed on a screen

Still and planar are taken from the same drawing by the same resampling as genuine frames: one frame tells nothing.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.attacks.placement import Placement, grid, in_plane, sample
from fastface.data.synthetic.attacks.present import DISPLAYS, SCREENS, Key, draw_instrument, to_planes
from fastface.data.synthetic.attacks.recapture import draw_camera, meter, steady, take
from fastface.data.synthetic.draws import MOTION, PRESENTATION, SENSOR, SHAKE, generator, uniform
from fastface.data.synthetic.render import MAX_SIZE_PX, render
from fastface.data.synthetic.shot import Shot
from fastface.spelling import nearest

CLIPS = ("genuine", "still", "planar", "warp", "video")
SPAN = 1.25  # shorter sides of the picture that a frame is drawn for: what comes into it as it moves
FINER = 1.25  # pixels drawn for one of the picture's side, so that resampling blurs little
BLINKS_PER_SECOND = 0.5  # people talking to a camera blink 15 to 30 times a minute
HEAD = {"yaw": 4.0, "pitch": 2.5, "roll": 1.8, "x": 0.008, "y": 0.006, "light_x": 0.05, "gaze_x": 0.15}
TALK = {"smile": 0.12, "mouth_open": 0.2, "brow_raise": 0.2}
HELD = {"x": 0.016, "y": 0.014, "roll": 2.2, "tilt": 6.0, "lean": 5.0, "zoom": 0.02}
TREMOR = {"x": 0.002, "y": 0.002, "roll": 0.25}


class Clip(NamedTuple):
    """What was filmed."""

    frames: np.ndarray
    """uint8 [T, size, size, 3], RGB."""
    landmarks: np.ndarray
    """float32 [T, 5, 2] in px, in the order of Face."""
    times: np.ndarray
    """float64 [T]: seconds from the first frame."""


def film(
    kind: str, identity: Identity, key: Key, size_px: int, num_frames: int = 18, fps: float = 12.0, *, site: int = 0
) -> Clip:
    """Film `identity` in the clip of this kind and key; equal keys give the same moments of the same person."""
    if kind not in CLIPS:
        raise ValueError(f"clip {kind!r}{nearest(kind, CLIPS)}; choose from {', '.join(CLIPS)}")
    if round(size_px * SPAN * FINER) > MAX_SIZE_PX:
        raise ValueError(f"size_px {size_px} is too large for a clip; at most {int(MAX_SIZE_PX / SPAN / FINER)}")
    times = np.arange(num_frames) / fps
    moves = generator(*key, MOTION)
    act = _acted(identity, key, moves, times)
    shake = generator(*key, SHAKE)
    places = _held(shake, times, TREMOR, 1.0, (0.8, 4.0))
    moment = int(shake.integers(num_frames))
    light = 1 + _walk(shake, times, 0.015)
    rng = generator(*key, PRESENTATION)
    if kind in ("planar", "warp"):
        places = _held(rng, times, HELD, uniform(rng, 0.7, 1.3), (0.2, 1.2), places)
    instrument = None
    if kind in ("warp", "video"):
        names = tuple(SCREENS if kind == "warp" else DISPLAYS)
        instrument = draw_instrument(rng, names[int(rng.integers(len(names)))], key.seed, site, (size_px, size_px))
    if kind == "warp":
        bend, axis = uniform(rng, 0.4, 0.8) + _walk(rng, times, 0.15, (0.3, 1.5)), uniform(rng, -90, 90)
        places = [place.moved(bend=abs(b), bend_axis=axis) for place, b in zip(places, bend.tolist(), strict=True)]
    camera, sensor = steady(draw_camera(*key, site)), generator(*key, SENSOR)
    frames, landmarks, exposure, drawn = [], [], None, {}
    for k, place in enumerate(places):
        shown = k if kind in ("genuine", "video") else moment
        if shown not in drawn:
            drawn = {shown: _drawn(identity, act[shown], size_px)}
        source, points = drawn[shown]
        if instrument is None:
            u, v, _ = place.to_plane(*grid((size_px, size_px)))
            scene = sample(source, u, v, SPAN)
        else:
            scene = instrument.show(source, place, SPAN, float(times[k]))
        scene = scene * np.float32(light[k])
        exposure = exposure or meter(scene, camera)
        frames.append(take(scene, camera, sensor, exposure))
        landmarks.append((place.to_picture(points) + 0.5) * size_px)
    return Clip(np.stack(frames), np.stack(landmarks).astype(np.float32), times)


def _acted(identity: Identity, key: Key, rng: np.random.Generator, times: np.ndarray) -> list[Shot]:
    """Draw what the person does: one shot a frame."""
    first = Shot.draw(key.seed, identity, key.image)
    paths = {name: _walk(rng, times, spread, (0.15, 0.9)) for name, spread in HEAD.items()}
    talking = uniform(rng, 0, 1)
    paths |= {name: talking * _walk(rng, times, spread, (0.3, 2.5)) for name, spread in TALK.items()}
    paths["scale"] = first.scale * _walk(rng, times, 0.008, (0.15, 0.6))
    lids = _blinks(rng, times)
    shots = []
    for k in range(len(times)):
        change = {name: getattr(first, name) + float(path[k]) for name, path in paths.items()}
        change["mouth_open"] = max(change["mouth_open"], 0.0)
        change["eye_closure"] = first.eye_closure + (1 - first.eye_closure) * float(lids[k])
        shots.append(dataclasses.replace(first, **change))
    return shots


def _blinks(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Return how far the lids are closed by blinks, 0 to 1: 0.1 s down, 0.2 s up."""
    start, end = -0.3, float(times[-1]) if len(times) else 0.0
    closed = np.zeros(len(times))
    at = start
    while (at := at + float(rng.exponential(1 / BLINKS_PER_SECOND))) < end:
        since = times - at
        closed = np.maximum(closed, np.minimum(np.clip(since / 0.1, 0, 1), np.clip((0.35 - since) / 0.2, 0, 1)))
    return closed


def _held(
    rng: np.random.Generator,
    times: np.ndarray,
    spreads: dict[str, float],
    strength: float,
    hertz: tuple[float, float],
    places: list[Placement] | None = None,
) -> list[Placement]:
    paths = {name: strength * _walk(rng, times, spread, hertz) for name, spread in spreads.items()}
    places = places or [Placement()] * len(times)
    return [place.moved(**{name: float(path[k]) for name, path in paths.items()}) for k, place in enumerate(places)]


def _walk(
    rng: np.random.Generator, times: np.ndarray, spread: float, hertz: tuple[float, float] = (0.2, 1.0)
) -> np.ndarray:
    """Draw a smooth random path of this standard deviation: float64 [T], the same at any frame rate."""
    path = np.zeros(len(times))
    for _ in range(3):
        frequency, phase = uniform(rng, *hertz), uniform(rng, 0, 2 * math.pi)
        path += np.sin(2 * math.pi * frequency * times + phase)
    return path * (spread * math.sqrt(2 / 3))


def _drawn(identity: Identity, shot: Shot, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the wide picture: float32 planes [3, n, n], and its landmarks in the plane, [5, 2]."""
    wide = dataclasses.replace(
        shot, scale=shot.scale / SPAN, x=0.5 + (shot.x - 0.5) / SPAN, y=0.5 + (shot.y - 0.5) / SPAN
    )
    face = render(identity, wide, round(size_px * SPAN * FINER))
    return to_planes(face.image), in_plane(face.landmarks, face.image.shape) * SPAN
