"""Photographs of real faces -> files of attacks with them, in the folders of a liveness set."""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from fastface.data.align import template
from fastface.data.images import Rejected, load_rgb
from fastface.data.sources import Source, read_file
from fastface.data.sources.scan import FileSource, left_out, scan
from fastface.data.synthetic.attacks.album import variants_of
from fastface.data.synthetic.attacks.present import CUTS, MASKS, VARIANTS, Key, present, retake


def attack_files(path: Path, out: Path, names: str, seed: int = 0, *, aligned: bool = False) -> tuple[int, list[str]]:
    """Write OUT/spoof/VARIANT/NAME.png of every picture; return how many, and a line for each that cannot be read.

    `path` is a picture, a folder or a .tar; `names` are attacks, of which `live` photographs the picture again with
    no attack, to OUT/live. `aligned` says that the faces lie on the ArcFace template, so that their eyes are known.
    """
    live = "live" in names.split(",")
    wanted = ",".join(name for name in names.split(",") if name != "live")
    variants = [variant for chosen in variants_of(wanted).values() for variant in chosen] if wanted else []
    blind = [variant for variant in variants if variant in CUTS or variant in MASKS]
    if blind and not aligned:
        raise ValueError(f"attack {blind[0]!r} must know where the eyes are: give aligned faces and say --aligned")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"--out {out} exists and is not an empty folder; choose another or remove it")
    count, bad = 0, []
    for name, data in tqdm(_pictures(path), unit="image", disable=None):
        try:
            image = load_rgb(data)
        except Rejected as error:
            bad.append(f"{name}: {error.reason}")
            continue
        identity = int.from_bytes(blake2b(name.encode("utf-8", "surrogateescape"), digest_size=4).digest(), "little")
        points = template((image.shape[1], image.shape[0])) if aligned else None
        if live:
            _save(retake(image, Key(seed, identity, 0)), out / "live", name)
        for variant in variants:
            key = Key(seed, identity, 1 + VARIANTS.index(variant))
            _save(present(image, variant, key, landmarks=points), out / "spoof" / variant, name)
        count += live + len(variants)
    return count, bad


def _pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_file() and path.suffix.lower() != ".tar":
        yield path.name, read_file(path)
        return
    found = scan(path)
    if not found.names:
        raise ValueError(f"{path} holds no pictures. Left out: {left_out(found.skipped)}")
    seen: dict[str, str] = {}
    for name in found.names:
        if (other := seen.setdefault(str(Path(name).with_suffix(".png")), name)) != name:
            raise ValueError(f"{path}: {other} and {name} would both be {Path(name).with_suffix('.png')}; rename one")
    source: Source = FileSource(path, found, found.names, found.skipped)
    for i in range(len(source)):
        yield source.name(i), source.read(i)


def _save(image: np.ndarray, folder: Path, name: str) -> None:
    file = (folder / name).with_suffix(".png")
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
