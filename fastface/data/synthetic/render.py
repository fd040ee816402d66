"""Identity + Shot -> Face: the picture a perfect camera would take, its box and its landmarks."""

import math
from typing import NamedTuple

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.face import mouth_corner, paint_face
from fastface.data.synthetic.hair import hair_mask, paint_bun, paint_hair, paint_hair_behind
from fastface.data.synthetic.paint import blend, cover, ramp
from fastface.data.synthetic.pose import Pose
from fastface.data.synthetic.relief import light
from fastface.data.synthetic.scene import background, paint_body, paint_ears, paint_neck
from fastface.data.synthetic.shot import Shot
from fastface.data.synthetic.wear import paint_glasses, paint_hat, paint_occluder

SUPERSAMPLE = 2  # develop() averages pairs
MIN_SIZE_PX, MAX_SIZE_PX = 24, 1024


class Face(NamedTuple):
    """A drawn picture. Coordinates are in px and span [0, size]; pixel column i covers [i, i + 1)."""

    image: np.ndarray
    """uint8 [size, size, 3], RGB."""
    box: np.ndarray
    """float32 [4]: x0, y0, x1, y1 of the face, forehead to chin, without hair and ears; clipped."""
    landmarks: np.ndarray
    """float32 [5, 2]: eye, eye, nose tip, mouth corner, mouth corner; of each pair the image's left first."""


def render(identity: Identity, shot: Shot, size_px: int) -> Face:
    """Draw `identity` as seen in `shot` on a square of `size_px` pixels."""
    if not MIN_SIZE_PX <= size_px <= MAX_SIZE_PX:
        raise ValueError(f"size_px {size_px} is outside [{MIN_SIZE_PX}, {MAX_SIZE_PX}]; choose a side in between")
    if shot.identity != identity.number:
        raise ValueError(
            f"the shot belongs to identity {shot.identity}, not to {identity.number}; draw it for that one"
        )
    pose = Pose(identity, shot, size_px)
    frame = pose.frame(SUPERSAMPLE * size_px)
    shading, gloss = light(identity, shot, pose, frame)
    hair = hair_mask(identity, shot, frame)

    body = background(shot, SUPERSAMPLE * size_px)
    paint_hair_behind(body, identity, shot, pose, frame)
    paint_neck(body, identity, pose, frame)
    paint_body(body, shot, frame)
    paint_bun(body, identity, shot, pose, frame)
    paint_ears(body, identity, pose, frame)

    head = paint_face(identity, shot, pose, frame)
    head *= shading * (1 - 0.4 * hair_shadow(hair, shot))
    head += gloss * 0.22
    on_head = cover(frame.inside, 2 * frame.px)
    blend(body, on_head, head)
    paint_hair(body, identity, shot, frame, hair, shading)
    paint_hat(body, shot, frame)
    paint_glasses(body, identity, shot, pose, frame)
    paint_occluder(body, identity, shot, frame)
    return Face(develop(body, shot), face_box(pose), landmarks(identity, shot, pose))


def develop(planes: np.ndarray, shot: Shot) -> np.ndarray:
    """Average the subpixels, apply shadow, exposure and colour, round: uint8 [size, size, 3]."""
    size_px = planes.shape[1] // SUPERSAMPLE
    rows = planes[:, 0::2] + planes[:, 1::2]
    small = rows[:, :, 0::2] + rows[:, :, 1::2]
    small *= 0.25
    if shot.shadow:
        angle = math.radians(shot.shadow_angle)
        axis = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px - 0.5
        place = math.cos(angle) * axis + math.sin(angle) * axis[:, None] - 0.5 * shot.shadow_place
        small *= 1 - shot.shadow * ramp(place, -0.04, 0.06)
    small *= (np.asarray(shot.cast, np.float32) * shot.exposure)[:, None, None]
    small = (small - 0.45) * shot.contrast + 0.45
    small = np.where(small > 0.8, 1 - 0.2 * np.exp(-(small - 0.8) * 5), small)  # film-like shoulder, no hard clipping
    return np.ascontiguousarray((np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def hair_shadow(hair: np.ndarray, shot: Shot) -> np.ndarray:
    """Return the shade the hair throws on the skin under it: the mask pushed away from the light."""
    step = max(hair.shape[0] // 32, 1)
    right = -step if shot.light_x > 0.3 else step if shot.light_x < -0.3 else 0
    return np.roll(hair, (step, right), (0, 1))


def landmarks(identity: Identity, shot: Shot, pose: Pose) -> np.ndarray:
    """Project the five landmarks: float32 [5, 2] in px."""
    who = identity
    tip = who.nose_lift
    points = [
        pose.project(-who.eye_x, who.eye_y),
        pose.project(who.eye_x, who.eye_y),
        pose.project(0.0, who.nose_y, tip),
        pose.project(*mouth_corner(who, shot, -1)),
        pose.project(*mouth_corner(who, shot, 1)),
    ]
    return np.asarray(points, np.float32)


def face_box(pose: Pose) -> np.ndarray:
    """Bound the projected outline from forehead to chin: float32 [4] in px, clipped to the picture."""
    points = []
    for y, row, forward in pose.outline(np.linspace(-0.58, 0.99, 9)):
        for edge in (-row, row):
            across = forward * pose.sin_yaw + edge
            points.append(pose.place(across, pose.lower(across, y)))
    spread = np.asarray(points)
    box = np.concatenate([spread.min(axis=0), spread.max(axis=0)])
    return np.clip(box, 0, pose.size_px).astype(np.float32)
