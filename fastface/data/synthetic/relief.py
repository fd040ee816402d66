"""Identity + Shot + Frame -> how light falls on the head: brow, nose, cheeks, lips, chin are bumps on it."""

import math

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.paint import blob, ramp, window
from fastface.data.synthetic.pose import Frame, Pose
from fastface.data.synthetic.shot import Shot


def light(identity: Identity, shot: Shot, pose: Pose, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return diffuse shading around 1 and a specular highlight in [0, 1], both float32 [n, n]."""
    height = frame.depth.copy()
    _add_bumps(height, identity, shot, pose, frame)
    _add_nose(height, identity, pose, frame)
    slope_y, slope_x = _slopes(height, 1 / (2 * frame.px))
    inverse = 1 / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    lx, ly = shot.light_x, shot.light_y
    norm = 1 / math.sqrt(lx * lx + ly * ly + 0.36)
    facing = (0.6 - slope_x * lx - slope_y * ly) * (inverse * norm)
    diffuse = np.clip(facing * 0.8 + 0.2, 0, 1)  # wrapped: skin scatters light past the terminator
    shading = shot.ambient * (0.55 + 0.45 * inverse) + (1.12 - shot.ambient) * diffuse
    half = 1 / math.sqrt((lx * norm) ** 2 + (ly * norm) ** 2 + (0.6 * norm + 1) ** 2)
    gloss = (1 + 0.6 * norm - slope_x * (lx * norm) - slope_y * (ly * norm)) * (inverse * half)
    gloss = np.clip(gloss, 0, 1) ** 2
    gloss = gloss * gloss
    gloss = gloss * gloss
    return shading, gloss * gloss


def nose_shift(identity: Identity, pose: Pose, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the nose, standing off the face, slides over it under this pose; `down` is y [h, w]."""
    length = identity.nose_y - identity.eye_y
    rise = identity.nose_lift * np.clip((down - identity.eye_y) * (1 / length), 0, 1)
    rise = rise * (1 - 0.6 * ramp(down, identity.nose_y, identity.nose_y + 0.12))
    sideways = pose.sin_yaw / pose.cos_yaw
    return rise * sideways, rise * (-pose.sin_pitch * pose.cos_yaw)


def _add_bumps(height: np.ndarray, identity: Identity, shot: Shot, pose: Pose, frame: Frame) -> None:
    who, eye, mouth = identity, identity.eye_x, identity.mouth_y
    brow = who.eye_y - who.brow_y
    cheek = 0.02 + 0.05 * who.cheeks + 0.03 * max(shot.smile, 0)
    socket = -0.035 - 0.045 * who.eye_depth
    bumps = [  # x, y, radii, rise; those beside the middle come in mirrored pairs
        (0.0, brow, 0.36, 0.07, 0.012 + 0.028 * who.masculine),
        (eye, who.eye_y - 0.01, 0.13, 0.09, socket),
        (eye, who.eye_y, 0.09, 0.06, 0.03),
        (0.36, 0.27, 0.15, 0.13, cheek),
        (0.0, mouth - 0.01, who.mouth_width, 0.11, 0.035),
        (0.0, mouth + 0.13, 0.14, 0.035, -0.025),
        (0.0, 0.88, 0.10 + 0.25 * max(who.chin + 0.16, 0), 0.09, 0.05),
    ]
    for x, y, rx, ry, rise in bumps:
        part = window(pose, frame, (0, y), (x + 1.6 * rx, 1.6 * ry))
        across = np.abs(frame.x[part]) - x if x else frame.x[part]
        height[part] += rise * blob(across, frame.y[part] - y, rx, ry)


def _add_nose(height: np.ndarray, identity: Identity, pose: Pose, frame: Frame) -> None:
    who = identity
    length = who.nose_y - who.eye_y
    part = window(pose, frame, (0, who.eye_y + length / 2), (who.nose_width + 0.25, length / 2 + 0.25))
    shift_x, shift_y = nose_shift(who, pose, frame.y[part])
    x, y = frame.x[part] - shift_x, frame.y[part] - shift_y
    along = np.clip((y - who.eye_y + 0.1) * (1 / (length + 0.1)), 0, 1)
    below = 1 - ramp(y, who.nose_y + 0.02, who.nose_y + 0.11)
    width = who.nose_bridge * (1 + 0.35 * along)
    ridge = np.maximum(1 - (x / (2.0 * width)) ** 2, 0)
    profile = 0.45 * who.nose_lift * along + who.nose_hook * np.sin(along * np.float32(math.pi))
    height[part] += ridge * ridge * profile * below
    tip = 0.05 + 0.035 * who.nose_ball
    height[part] += 0.25 * who.nose_lift * blob(x, y - who.nose_y, tip * 1.3, tip)
    height[part] += 0.055 * blob(np.abs(x) - 0.72 * who.nose_width, y - who.nose_y - 0.03, 0.38 * who.nose_width, 0.06)


def _slopes(height: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    slope_y, slope_x = np.zeros_like(height), np.zeros_like(height)
    slope_y[1:-1] = (height[2:] - height[:-2]) * scale
    slope_x[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * scale
    return np.clip(slope_y, -3, 3), np.clip(slope_x, -3, 3)
