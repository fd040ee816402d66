"""(seed, number) -> live pictures of a person and attacks on them, each with its path in a liveness folder."""

from collections.abc import Iterator

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.attacks.present import VARIANTS, Key, present, retake
from fastface.data.synthetic.render import render
from fastface.data.synthetic.shot import Shot
from fastface.spelling import nearest

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
            face = render(who, Shot.draw(seed, who, image), SHARPER * size_px)
            path = f"site-{site}/spoof/{variant}/id-{number:05d}/{image:04d}.png"
            yield (
                path,
                present(face.image, variant, Key(seed, number, image), site=site, shape=(size_px, size_px)),
            )
