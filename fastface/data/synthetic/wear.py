"""Identity + Shot + Frame -> what is before the head: glasses, hats, masks, scarves, hands, stray hair."""

import math

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.colours import mix, tint
from fastface.data.synthetic.draws import OCCLUDER, chance, generator, uniform
from fastface.data.synthetic.paint import blend, cover, noise, ramp, toned, window
from fastface.data.synthetic.pose import Frame, Pose
from fastface.data.synthetic.shot import Shot


def paint_glasses(planes: np.ndarray, identity: Identity, shot: Shot, pose: Pose, frame: Frame) -> None:
    """Draw frames, lenses and temples where the shot has glasses."""
    if not shot.glasses:
        return
    who = identity
    part = window(pose, frame, (0, who.eye_y), (who.head_width, 0.42), 0.1)
    area = planes[:, part[0], part[1]]
    # The lenses stand 0.1 head units before the eyes and slide over the face as the head turns.
    x = frame.x[part] - 0.1 * pose.sin_yaw / pose.cos_yaw
    y = frame.y[part] + 0.1 * pose.sin_pitch
    on_head = cover(frame.inside[part], frame.px)
    wide = 0.26 if shot.sunglasses else who.glasses_width
    high = wide * (0.92 if shot.sunglasses else 0.68 + 0.3 * who.glasses_round)
    power = 2.0 + 5.0 * (1 - who.glasses_round)
    middle = max(who.eye_x, wide + 0.03)
    dx, dy = np.abs(np.abs(x) - middle) * (1 / wide), np.abs(y - who.eye_y - 0.02) * (1 / high)
    edge = (1 - (np.minimum(dx, 2) ** power + np.minimum(dy, 2) ** power) ** (1 / power)) * high
    if shot.sunglasses:
        blend(area, cover(edge, 2 * frame.px) * 0.93, (0.05, 0.05, 0.06))
        blend(area, cover(edge, frame.px) * 0.25 * ramp(-y, -0.1, 0.3), shot.occluder_colour)
    else:
        blend(area, cover(edge, frame.px) * (0.10 + 0.1 * max(shot.light_y, 0)), (0.85, 0.9, 0.95))
    thick = max(who.glasses_thick, 0.6 * frame.px)
    rim = cover(thick - np.abs(edge), 1.5 * frame.px)
    bridge = cover(thick - np.abs(y - who.eye_y + 0.02 - 0.8 * x * x), 1.5 * frame.px) * cover(
        middle - wide - np.abs(x), 0.02
    )
    temple = (
        cover(thick - np.abs(y - who.eye_y + 0.03), 1.5 * frame.px) * cover(np.abs(x) - middle - wide, 0.02) * on_head
    )
    blend(area, np.maximum(np.maximum(rim, bridge), temple), who.glasses_colour)


def paint_hat(planes: np.ndarray, shot: Shot, frame: Frame) -> None:
    """Draw the cap, beanie or hood of the shot, if any."""
    if shot.hat == "none":
        return
    x, y = frame.x, frame.y
    weave = 0.85 + 0.2 * noise("cloud" if shot.hat != "beanie" else "strands", x, y, 90, shot.image)
    colour = toned(shot.hat_colour, weave)
    if shot.hat == "hood":
        ring = np.minimum(frame.inside + 0.30, 0.02 - 0.5 * frame.inside - 0.02 * y)
        ring = np.minimum(ring, 1.05 - y)
        blend(planes, cover(ring, 0.04), colour * (0.6 + 1.2 * np.clip(-frame.inside, 0, 0.3)))
        return
    brim = -0.50 + 0.08 * np.sin(np.float32(shot.image)) + 0.05 * frame.turn
    shell = frame.inside + 0.03 + 0.12 * ramp(brim - y, -0.05, 0.35)
    blend(planes, cover(np.minimum(shell, brim - y), 2 * frame.px), colour)
    if shot.hat == "beanie":
        band = cover(np.minimum(0.09 - np.abs(y - brim + 0.05), shell + 0.015), 2 * frame.px)
        blend(planes, band, colour * 0.8)
    else:
        peak = np.minimum(y - brim + 0.05, brim + 0.17 - 0.45 * x * x - y)
        blend(planes, cover(np.minimum(peak, 0.75 - frame.turn), 2 * frame.px), colour * 0.62)


def paint_occluder(planes: np.ndarray, identity: Identity, shot: Shot, frame: Frame) -> None:
    """Draw what hides part of the face in this shot, if anything."""
    if shot.occluder != "none":
        rng = generator(shot.seed, shot.identity, shot.image, OCCLUDER)
        OCCLUSIONS[shot.occluder](planes, identity, shot, frame, rng)


def _mask(planes: np.ndarray, identity: Identity, shot: Shot, frame: Frame, rng: np.random.Generator) -> None:
    top = identity.nose_y - uniform(rng, 0.05, 0.2)
    inside = np.minimum(frame.inside - 0.015, frame.y - top - 0.5 * frame.x**2)
    white = mix((0.85, 0.9, 0.93), shot.occluder_colour, 1.0 if chance(rng, 0.4) else 0.25)
    folds = 0.86 + 0.1 * np.cos(frame.y * np.float32(34)) - 0.3 * np.abs(frame.x) ** 2
    blend(planes, cover(inside, 2 * frame.px), toned(white, folds))
    straps = cover(0.018 - np.abs(frame.y - top - 0.05 + 0.18 * (np.abs(frame.x) - 0.6)), 0.02) * ramp(
        frame.turn, 0.5, 0.7
    )
    blend(planes, straps * cover(frame.inside, 2 * frame.px), white)


def _scarf(planes: np.ndarray, identity: Identity, shot: Shot, frame: Frame, rng: np.random.Generator) -> None:
    x, y = frame.body_x, frame.body_y
    top = uniform(rng, 0.62, 0.98) + 0.15 * x * uniform(rng, -1, 1) + 0.1 * x**2
    inside = np.minimum(y - top, 1.0 + 0.3 * y - np.abs(x))
    stripes = 0.8 + 0.25 * np.sin(y * uniform(rng, 12, 40) + 3 * x) * uniform(rng, 0, 1)
    folds = stripes + 0.15 * noise("strands", y, x, 40, shot.image)
    blend(planes, cover(inside, 0.03), toned(shot.occluder_colour, folds))


def _strand(planes: np.ndarray, identity: Identity, shot: Shot, frame: Frame, rng: np.random.Generator) -> None:
    side = 1 if chance(rng, 0.5) else -1
    for _ in range(int(rng.integers(2, 6))):
        start, bend, lean = uniform(rng, -0.1, 0.55), uniform(rng, -0.35, 0.35), uniform(rng, -0.4, 0.2)
        middle = side * (start + lean * frame.y + bend * frame.y**2)
        length = uniform(rng, 0.0, 0.7)
        thick = uniform(rng, 0.015, 0.05) * ramp(length - frame.y, 0, 0.8)
        lock = cover(thick - np.abs(frame.x - middle), 0.03) * cover(frame.y + 0.85, 0.1)
        blend(planes, lock * cover(frame.inside + 0.05, 0.05), identity.hair)


def _hand(planes: np.ndarray, identity: Identity, shot: Shot, frame: Frame, rng: np.random.Generator) -> None:
    side = 1 if chance(rng, 0.5) else -1
    x0, y0 = side * uniform(rng, 0.15, 0.6), uniform(rng, 0.1, 0.75)
    angle = math.radians(uniform(rng, -50, 50)) + (0.35 * side)
    dx, dy = frame.body_x - x0, frame.body_y - y0
    across = dx * math.cos(angle) + dy * math.sin(angle)
    down = dy * math.cos(angle) - dx * math.sin(angle)
    skin = tint(identity.skin, *(uniform(rng, 0.88, 1.02),) * 3)
    thick = uniform(rng, 0.075, 0.1)
    palm = np.minimum(2.6 * thick - np.abs(across - 3 * thick), down - 0.3)
    blend(planes, cover(palm, 0.04), tint(skin, 0.9, 0.88, 0.86))
    for finger in range(4):
        reach = (0.08, 0.0, 0.03, 0.14)[finger]
        offset = across - finger * 2.05 * thick
        distance = np.sqrt(offset**2 + np.minimum(down - reach, 0) ** 2)
        inside = np.minimum(thick - distance, 0.75 - down)
        tone = 1.02 - 0.35 * np.clip(distance * (1 / thick), 0, 1) ** 3
        blend(planes, cover(inside, 2 * frame.px), toned(skin, tone))


OCCLUSIONS = {"mask": _mask, "scarf": _scarf, "strand": _strand, "hand": _hand}
