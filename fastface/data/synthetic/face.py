"""Identity + Shot + Frame -> the face's colours before light: skin, eyes, brow, nose, mouth, beard, marks."""

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.colours import mix, tint
from fastface.data.synthetic.paint import blob, cover, ellipse, limit, noise, patch, ramp
from fastface.data.synthetic.pose import Frame, Pose
from fastface.data.synthetic.relief import nose_shift
from fastface.data.synthetic.shot import Shot


def paint_face(identity: Identity, shot: Shot, pose: Pose, frame: Frame) -> np.ndarray:
    """Return the face's colours as float32 planes [3, n, n]; only what is inside the outline has meaning."""
    planes = np.empty((3, *frame.x.shape), np.float32)
    planes[:] = np.asarray(identity.skin, np.float32)[:, None, None]
    _tones(planes, identity, shot, pose, frame)
    _marks(planes, identity, pose, frame)
    _nose(planes, identity, pose, frame)
    _beard(planes, identity, pose, frame)
    _mouth(planes, identity, shot, pose, frame)
    _eyes(planes, identity, shot, pose, frame)
    _brows(planes, identity, shot, pose, frame)
    return planes


def mouth_corner(identity: Identity, shot: Shot, side: int) -> tuple[float, float]:
    """Return where a mouth corner lies on the head: a smile widens and lifts, an open mouth narrows."""
    smile = max(shot.smile, 0)
    wide = identity.mouth_width * (1 + 0.22 * smile - 0.16 * shot.mouth_open * (1 - smile))
    return side * wide, identity.mouth_y - 0.055 * shot.smile + 0.02 * shot.mouth_open


def _tones(planes: np.ndarray, identity: Identity, shot: Shot, pose: Pose, frame: Frame) -> None:
    who = identity
    cheeks = patch(pose, frame, planes, (0, 0.3), (0.66, 0.26))
    blush = blob(np.abs(cheeks.x) - 0.36, cheeks.y, 0.18, 0.15)
    cheeks.lay(0.16 * (0.3 + who.cheeks) * blush, tint(who.skin, 1.0, 0.66, 0.64))
    eyes = patch(pose, frame, planes, (0, who.eye_y - 0.02), (who.eye_x + 0.26, 0.22))
    across = np.abs(eyes.x) - who.eye_x
    eyes.shade(blob(across, eyes.y, 0.16, 0.11), 0.86 - 0.16 * who.eye_depth)
    bags = blob(across, eyes.y - 0.14 - 0.12 * across**2, 0.11, 0.028)
    eyes.shade(bags, 1 - 0.2 * min(who.wrinkles + 0.2, 1))
    strength = min(0.25 * who.wrinkles + 0.22 * max(shot.smile, 0), 0.4)
    if strength > 0.03:
        fold = patch(pose, frame, planes, (0, 0.5), (who.nose_width + 0.3, 0.28))
        line = np.abs(fold.x) - (who.nose_width + 0.1) - 0.45 * fold.y - 0.25 * fold.y**2
        fold.shade(cover(0.022 - np.abs(line), 0.03) * ramp(0.2 - np.abs(fold.y), 0, 0.1), 1 - strength)
    if who.wrinkles > 0.15:
        brow = patch(pose, frame, planes, (0, who.hairline * 0.5 - 0.15), (0.4, 0.18))
        lines = np.cos(brow.y * np.float32(70) + 6 * brow.x**2)
        brow.shade(np.maximum(lines, 0) * blob(brow.x, brow.y, 0.25, 0.11), 1 - 0.22 * min(who.wrinkles, 1))
    below = patch(pose, frame, planes, (0, who.mouth_y + 0.15), (0.3, 0.1))
    below.shade(blob(below.x, below.y, 0.15, 0.045), 0.88)


def _marks(planes: np.ndarray, identity: Identity, pose: Pose, frame: Frame) -> None:
    dark = tint(identity.skin, 0.42, 0.34, 0.32)
    if identity.freckles:
        area = patch(pose, frame, planes, (0, 0.22), (0.55, 0.24))
        spots = ramp(noise("grain", area.x, area.y, 90, identity.number), 0.25, 0.75)
        area.lay(
            0.65 * identity.freckles * spots * blob(area.x, area.y, 0.42, 0.2),
            tint(identity.skin, 0.72, 0.52, 0.42),
        )
    for x, y, radius in identity.moles:
        spot = patch(pose, frame, planes, (x, y), (radius * 1.5, radius * 1.5))
        spot.lay(0.85 * cover(ellipse(spot.x, spot.y, radius, radius), 0.02), dark)


def _nose(planes: np.ndarray, identity: Identity, pose: Pose, frame: Frame) -> None:
    who = identity
    nose = patch(pose, frame, planes, (0, who.nose_y), (who.nose_width + 0.22, 0.3))
    shift_x, shift_y = nose_shift(who, pose, nose.y + who.nose_y)
    x, y = nose.x - shift_x, nose.y - shift_y
    nose.shade(blob(x, y - 0.1, who.nose_width * 0.9, 0.04), 0.80)
    aside = np.abs(x)
    nose.shade(blob(aside - who.nose_width, y - 0.035, 0.032, 0.06), 0.68)
    nose.shade(blob(aside - 1.7 * who.nose_bridge, y + 0.16, 0.045, 0.14), 0.88)
    hole = ellipse(aside - 0.46 * who.nose_width, y - 0.058, 0.30 * who.nose_width, 0.020)
    nose.lay(0.75 * cover(hole, 0.025), tint(who.skin, 0.30, 0.20, 0.20))
    nose.lay(0.22 * who.nose_ball * blob(x, y, 0.09, 0.08), tint(who.skin, 1.05, 0.75, 0.72))


def _eyes(planes: np.ndarray, identity: Identity, shot: Shot, pose: Pose, frame: Frame) -> None:
    who, wide = identity, identity.eye_width
    eye = patch(pose, frame, planes, (0, who.eye_y), (who.eye_x + wide + 0.05, 0.17))
    x = np.abs(eye.x) - who.eye_x
    y = eye.y - who.eye_tilt * x
    rise = max(who.eye_open * (1 - max(shot.eye_closure, -0.2)), 0.004)
    drop = who.eye_open * 0.72 * (1 - 0.35 * max(shot.smile, 0)) if rise > 0.01 else 0.004
    across = limit(1 - (x * (1 / wide)) ** 2)
    arch = np.sqrt(across) * (0.6 + 0.4 * across)
    upper, lower = y + rise * arch, drop * across - y
    crease = np.abs(upper + 0.022 + 0.022 * who.eye_fold)
    eye.shade(cover(0.010 - crease, 0.014) * across, 1 - 0.5 * who.eye_fold)
    opening = cover(np.minimum(np.minimum(upper, lower), (wide - np.abs(x)) * 0.5), eye.px)
    white = mix((0.90, 0.88, 0.86), who.skin, 0.12)
    eye.lay(opening, white)
    eye.shade(opening * ramp(-upper, -0.05, 0.0), 0.7)
    ball = min(0.062, 0.55 * wide)
    outward = np.where(eye.x > 0, np.float32(1), np.float32(-1))
    gaze_x, gaze_y = x - (0.3 * wide * shot.gaze_x) * outward, y - 0.02 * shot.gaze_y + 0.006
    distance = np.sqrt(gaze_x * gaze_x + gaze_y * gaze_y)
    eye.lay(opening * cover(ball - distance, eye.px), tint(who.iris, 0.55, 0.55, 0.55))
    eye.lay(opening * cover(ball * 0.86 - distance, 0.02), who.iris)
    eye.lay(opening * cover(ball * 0.45 - distance, eye.px), (0.03, 0.02, 0.02))
    glint = np.abs(gaze_x - (0.02 * shot.light_x) * outward) + np.abs(gaze_y + 0.024)
    eye.lay(opening * cover(0.013 - glint, eye.px), (1.0, 1.0, 1.0))
    inner = ramp(across, 0.0, 0.25)
    lid = cover((0.010 + 0.016 * who.lash) - np.abs(upper - 0.004), 0.018) * inner
    eye.lay(lid * (0.5 + 0.5 * who.lash), mix((0.05, 0.03, 0.03), who.skin, 0.12))
    eye.shade(cover(0.009 - np.abs(lower), 0.014) * inner, 0.72)


def _brows(planes: np.ndarray, identity: Identity, shot: Shot, pose: Pose, frame: Frame) -> None:
    who = identity
    height = who.eye_y - who.brow_y - 0.035 * shot.brow_raise
    brow = patch(pose, frame, planes, (0, height), (who.eye_x + who.brow_width + 0.06, 0.19))
    x = (np.abs(brow.x) - (who.eye_x + 0.01)) * (1 / who.brow_width)
    middle = who.brow_arch * (x - 0.25) ** 2 - 0.3 * who.brow_arch + who.brow_tilt * who.brow_width * x
    thickness = who.brow_thickness * np.clip(1.15 - 0.55 * np.maximum(x, -0.6), 0.3, 1.5)
    hairs = 0.7 + 0.3 * noise("grain", brow.x, brow.y, 120, who.number)
    ends = ramp(1.05 - np.abs(x), 0.0, 0.2)
    brow.lay(cover(thickness - np.abs(brow.y - middle), 0.022) * ends * hairs * 0.92, who.brow)


def _mouth(planes: np.ndarray, identity: Identity, shot: Shot, pose: Pose, frame: Frame) -> None:
    who = identity
    wide, corner_y = mouth_corner(who, shot, 1)
    gape = 0.14 * shot.mouth_open + 0.035 * max(shot.smile - 0.35, 0)
    mouth = patch(pose, frame, planes, (0, who.mouth_y), (wide + 0.04, who.lip_lower + gape + 0.12))
    x = mouth.x * (1 / wide)
    across = limit(1 - x * x)
    line = mouth.y - (corner_y - who.mouth_y) * (1 - across)
    bow = 1 - 0.45 * who.lip_bow * np.maximum(1 - (x * 4) ** 2, 0)
    stretch = 1 - 0.25 * max(shot.smile, 0)
    top = line + who.lip_upper * stretch * 1.25 * across**0.7 * bow + 0.25 * gape * across
    bottom = 0.75 * gape * across + who.lip_lower * stretch * across**0.8 - line
    sides = (1 - np.abs(x)) * (0.6 * wide)
    lips = cover(np.minimum(np.minimum(top, bottom), sides), 1.3 * mouth.px)
    mouth.lay(lips * 0.9, who.lip)
    mouth.shade(lips * ramp(-line, -0.01, 0.03), 0.84)
    mouth.lay(
        0.35 * lips * blob(mouth.x, line - 0.75 * gape - 0.5 * who.lip_lower, wide * 0.4, 0.02),
        tint(who.lip, 1.4, 1.5, 1.5),
    )
    opening = np.minimum(line + 0.25 * gape * across, 0.75 * gape * across - line)
    inside = cover(opening, mouth.px * 1.2) * ramp(across, 0.02, 0.2)
    if gape > 0.015:
        mouth.lay(inside, (0.16, 0.05, 0.05))
        teeth = inside * cover(0.035 + 0.02 * shot.smile - (line + 0.25 * gape), 0.012) * ramp(across, 0.2, 0.5)
        mouth.lay(teeth * min(1.0, 12 * gape), (0.90, 0.87, 0.82))
    seam = cover(0.009 - np.abs(line + 0.25 * gape * across), 0.016) * ramp(1.06 - np.abs(x), 0, 0.1)
    mouth.shade(seam, 0.5)


def _beard(planes: np.ndarray, identity: Identity, pose: Pose, frame: Frame) -> None:
    who = identity
    if not (who.beard or who.moustache):
        return
    colour = mix(who.brow, who.hair, 0.5)
    area = patch(pose, frame, planes, (0, 0.62), (who.head_width * 1.15, 0.62))
    x, y = area.x, area.y + 0.62
    hairs = 0.82 + 0.3 * noise("grain", x, y, 110, who.number)
    if who.beard:
        reach = 0.10 + 0.5 * who.beard_reach
        edge = who.mouth_y + 0.10 - 0.9 * np.maximum(np.abs(x) - 0.30, 0) - 0.35 * reach * ramp(np.abs(x), 0.2, 0.5)
        bare = ellipse(x, y - who.mouth_y - 0.01, who.mouth_width * 1.2, 0.13)
        mask = ramp(y - edge, -0.04, 0.10) * (1 - cover(bare, 0.07))
        area.lay(limit(mask * who.beard * hairs), colour)
    if who.moustache:
        top = who.nose_y + 0.105
        middle = 0.5 * (top + who.mouth_y - who.lip_upper) + 1.1 * x * x
        tall = max(0.5 * (who.mouth_y - top), 0.03)
        reach = max(1.2 * who.mouth_width, 0.24)
        mask = cover(tall * (1 - 0.4 * np.abs(x) / reach) - np.abs(y - middle), 0.04) * ramp(reach - np.abs(x), 0, 0.1)
        area.lay(limit(mask * who.moustache * hairs), colour)
