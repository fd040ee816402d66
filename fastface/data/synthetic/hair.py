"""Identity + Shot + Frame -> hair: what falls behind the neck and what covers skull, temples and forehead."""

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.paint import blend, cover, limit, noise, plane_window, ramp, toned
from fastface.data.synthetic.pose import Frame, Pose
from fastface.data.synthetic.scene import beside
from fastface.data.synthetic.shot import Shot

LONG = ("bob", "long", "wavy")


def paint_hair_behind(planes: np.ndarray, identity: Identity, shot: Shot, pose: Pose, frame: Frame) -> None:
    """Draw the hair that hangs behind the face, for the styles that have any."""
    who = identity
    if who.hair_style not in LONG or (shot.tied and who.hair_style != "bob"):
        return
    x, y = frame.body_x + 0.22 * pose.sin_yaw - 0.1 * pose.sin_roll, frame.body_y
    wave = 0.035 * np.sin(9 * y + who.number) if who.hair_style == "wavy" else 0.0
    crown = np.sqrt(limit((y + (1.0 + who.volume)) * 0.9))
    fall = ramp(y, 0.1, who.hair_length)
    wide = (who.head_width + who.volume + 0.08) * crown - 0.05 + (0.16 if who.hair_style == "wavy" else -0.02) * fall
    length = who.hair_length + 0.07 * shot.mess - 0.2 * np.abs(x)
    inside = np.minimum(wide + wave - np.abs(x), length - y)
    strands = noise("strands", frame.body_x, 0.5 * frame.body_y, 80, who.number)
    tone = (0.72 + 0.22 * strands) * (1 - 0.3 * ramp(0.35 - np.abs(x), 0, 0.35))
    blend(planes, cover(inside + 0.02 * strands, 0.05), toned(who.hair, tone))


def hair_mask(identity: Identity, shot: Shot, frame: Frame) -> np.ndarray:
    """Return the coverage [n, n] of the hair on the head, seen from the front."""
    who, style = identity, identity.hair_style
    mess = 0.035 * shot.mess
    strands = noise("strands", frame.x, 0.4 * frame.y, 70, who.number + shot.image)
    hairline = who.hairline + mess + 0.35 * (frame.x - who.part) * who.part
    hairline = hairline + 0.18 * (frame.x * (1 / who.head_width)) ** 2
    hairline = hairline - who.recession * ramp(np.abs(frame.x), 0.08, 0.34)
    if style == "fringe":
        hairline = hairline + 0.07 * strands
    elif style == "side":
        hairline = hairline + 0.16 * np.clip((frame.x - who.part) * (1.0 if who.part > 0 else -1.0), -0.4, 0.5)
    loose = style in LONG and not (shot.tied and style != "bob")
    side = 0.75 if loose else who.sideburn
    if style == "bald":
        hairline, side = np.float32(-2.0), 0.0
    start, stop = (0.42, 0.72) if loose else (0.50, 0.92)
    edge = hairline + (side + mess - hairline) * ramp(frame.turn, start, stop)
    nape = 0.75 if loose else 0.48
    edge = edge + (nape - side) * ramp(frame.turn, 1.0, 1.3)
    feather = 0.10 if style in ("buzz", "bald") else 0.05
    volume = who.volume * (1 + 0.12 * shot.mess) * ramp(edge - frame.y, -0.05, 0.35)
    bumps = 0.07 * who.volume * strands
    if style == "curly":
        bumps = 0.22 * who.volume * noise("cloud", frame.x, frame.y, 90, who.number)
        edge = edge + 0.08 * noise("cloud", frame.x, frame.y, 110, who.number)
    inside = cover(frame.inside + volume + bumps, 0.04)
    return inside * cover(edge - frame.y, feather)


def paint_hair(
    planes: np.ndarray, identity: Identity, shot: Shot, frame: Frame, mask: np.ndarray, shading: np.ndarray
) -> None:
    """Lay the hair of the head, with its strands and its shine, over `planes` by a mask of hair_mask."""
    who = identity
    kind, across, down = {"curly": ("cloud", 1.1, 1.1)}.get(who.hair_style, ("strands", 0.85, 0.4))
    strands = noise(kind, frame.x * across, frame.y * down, 100, who.number)
    tone = (0.88 + 0.26 * strands) * (0.35 + 0.65 * shading)
    opacity = {"buzz": 0.72, "bald": 0.3}.get(who.hair_style, 1.0)
    shine = cover(0.16 - np.abs(frame.y + 0.72 + 0.06 * strands), 0.25)
    tone += shine * (0.35 * shot.hair_shine * opacity)
    blend(planes, mask * opacity, toned(who.hair, tone))


def paint_bun(planes: np.ndarray, identity: Identity, shot: Shot, pose: Pose, frame: Frame) -> None:
    """Draw the knot of tied hair above the crown, before the head."""
    who = identity
    if not (who.hair_style == "tied" or (shot.tied and who.hair_style in ("long", "wavy"))):
        return
    at, radius = (-0.25 * pose.sin_yaw, -1.10 + 0.12 * pose.sin_pitch), 0.24 + 0.03 * shot.mess
    part = plane_window(pose, frame, at, 1.2 * radius)
    dx, dy = beside(pose, frame, part, at)
    mask = cover(radius - np.sqrt(dx * dx + dy * dy), 0.04)
    tone = 0.8 + 0.25 * noise("strands", dx, dy, 80, who.number)
    blend(planes[:, part[0], part[1]], mask, toned(who.hair, tone))
