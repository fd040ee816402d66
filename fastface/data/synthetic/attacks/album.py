"""(seed, number) -> live pictures or clips of a person and attacks on them, with their paths in a liveness folder."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.attacks.clips import CLIPS, film
from fastface.data.synthetic.attacks.present import CUTS, MASKS, VARIANTS, Key, present, retake
from fastface.data.synthetic.render import render
from fastface.data.synthetic.shot import Shot
from fastface.spelling import nearest

FIRST_CLIP = 1_000_000  # numbers of clips are above those of pictures
FIRST_WEARER = 2**31  # people who wear masks are nobody of the set
BARE = {"occluder": "none", "glasses": False, "sunglasses": False, "hat": "none", "eye_closure": 0.0}
SHARPER = 2  # an attack's source has this many times the side, else printing it again would blur it


def variants_of(names: str) -> dict[str, tuple[str, ...]]:
    """Turn "print,replay-phone" into {"print": ("print-laser", ...), "replay-phone": ("replay-phone",)}."""
    known = {name.split("-")[0] for name in VARIANTS} | set(VARIANTS)
    chosen: dict[str, tuple[str, ...]] = {}
    for name in names.split(","):
        if name not in known:
            raise ValueError(f"attack {name!r}{nearest(name, known)}; choose from {', '.join(sorted(known))}")
        chosen[name] = tuple(variant for variant in VARIANTS if name in (variant, variant.split("-")[0]))
    return chosen


def clips_of(names: str) -> tuple[str, ...]:
    """Turn "still,planar" into a tuple of kinds of attacking clips."""
    known = CLIPS[1:]
    for name in names.split(","):
        if name not in known:
            raise ValueError(f"clip {name!r}{nearest(name, known)}; choose from {', '.join(known)}")
    return tuple(dict.fromkeys(names.split(",")))


def draw_attacks(
    seed: int, number: int, images: int, size_px: int, attacks: dict[str, tuple[str, ...]], sites: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (path, uint8 [size, size, 3]) of `images` live pictures of a person and as many of each attack.

    Paths are SITE/live/PERSON/IMAGE.png and SITE/spoof/VARIANT/PERSON/IMAGE.png; no two show the same shot. A person
    belongs to one of `sites`, which have phones, printers and displays of their own.
    """
    who, site = Identity.draw(seed, number), number % sites
    for image in range(images):
        face = render(who, Shot.draw(seed, who, image), size_px)
        path = f"site-{site}/live/id-{number:05d}/{image:04d}.png"
        yield path, retake(face.image, Key(seed, number, image), site=site)
    for place, variants in enumerate(attacks.values(), start=1):
        for k in range(images):
            image = place * images + k
            variant = variants[(number + k) % len(variants)]
            path = f"site-{site}/spoof/{variant}/id-{number:05d}/{image:04d}.png"
            yield path, _attacked(who, image, size_px, variant, site)


def _attacked(who: Identity, image: int, size_px: int, variant: str, site: int) -> np.ndarray:
    key, shape = Key(who.seed, who.number, image), (size_px, size_px)
    shot, wearer = Shot.draw(who.seed, who, image), None
    if variant in CUTS or variant in MASKS:  # made of a picture with nothing before the face
        shot = dataclasses.replace(shot, **BARE)
        other = Identity.draw(who.seed, FIRST_WEARER + who.number)
        pose = {name: getattr(shot, name) for name in ("yaw", "pitch", "roll", "scale", "x", "y")}
        wearer = render(other, dataclasses.replace(Shot.draw(who.seed, other, image), **BARE, **pose), size_px)
    face = render(who, shot, SHARPER * size_px)
    return present(face.image, variant, key, site=site, shape=shape, landmarks=face.landmarks, wearer=wearer)


def draw_clips(
    seed: int, number: int, clips: int, size_px: int, kinds: tuple[str, ...], sites: int, num_frames: int, fps: float
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (path, uint8 [size, size, 3]) of the frames of `clips` genuine clips and as many of each attack.

    Paths are SITE/live/PERSON/CLIP/FRAME.png and SITE/spoof/KIND/PERSON/CLIP/FRAME.png; no two show the same moments.
    """
    who, site = Identity.draw(seed, number), number % sites
    for place, kind in enumerate(("genuine", *kinds)):
        folder = f"site-{site}/" + ("live" if kind == "genuine" else f"spoof/{kind}") + f"/id-{number:05d}"
        for clip in range(place * clips, (place + 1) * clips):
            taken = film(kind, who, Key(seed, number, FIRST_CLIP + clip), size_px, num_frames, fps, site=site)
            for k, frame in enumerate(taken.frames):
                yield f"{folder}/clip-{clip:04d}/{k:04d}.png", frame
