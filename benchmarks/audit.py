"""Faults planted into a folder of faces -> how many of them tools/audit.py finds, and how much else.

    python benchmarks/audit.py --images lfw/images.tar --crop 0.5 --model runs/mobilefacenet_128d

Copies (equal, at quality 60, through 60 % of the size, mirrored), copies under another name, images moved to another
identity, identities given two names, identities that take in another's images, blurred, dark and grey images. What
the images had wrong before counts as found wrongly. Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from PIL import Image, ImageEnhance, ImageFilter, ImageOps  # noqa: E402

from fastface.conversion.convert import convert  # noqa: E402
from fastface.conversion.options import Options  # noqa: E402
from fastface.data.embeddings import write_embeddings  # noqa: E402
from fastface.data.image_sets import ShardImages  # noqa: E402
from fastface.data.images import ImageSpec  # noqa: E402
from fastface.data.index import Index  # noqa: E402
from fastface.data.sources.kinds import open_source  # noqa: E402
from fastface.mining.audit import audit  # noqa: E402

Key = str | frozenset[str]


class Planted(NamedTuple):
    """Files with faults, and where the faults are."""

    files: dict[str, bytes]  # path -> bytes
    origin: dict[str, str]  # path -> the path of the image it was made of
    truth: dict[str, set[Key]]  # what -> images, pairs of images, identities or pairs of identities
    soft: set[str]  # images whose detail went with their size: neither right nor wrong where blur is looked for


FOUND = {  # what was planted -> the kinds of findings that name it, and the columns of findings.csv that do
    "copies": (("duplicate", "near-duplicate"), ("image", "other_image")),
    "copies under two names": (("duplicate-conflict", "near-duplicate-conflict"), ("image", "other_image")),
    "wrong person": (("mislabelled",), ("image",)),
    "one person, two names": (("same-person",), ("identity", "other_identity")),
    "two people, one name": (("split",), ("identity",)),
    "blurred": (("blurred",), ("image",)),
    "dark": (("dark",), ("image",)),
    "grey": (("grey",), ("image",)),
}
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "quality": lambda image: image,
    "size": lambda image: image.resize((round(0.6 * image.width), round(0.6 * image.height)), 2).resize(image.size, 2),
    "mirror": ImageOps.mirror,
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 40)),
    "dark": lambda image: ImageEnhance.Brightness(image).enhance(0.15),
    "grey": lambda image: image.convert("L"),
}


def plant(people: Mapping[str, Mapping[str, bytes]], *, each: int, seed: int = 0) -> Planted:
    """Plant `each` faults of every kind; no identity has two. people: name -> file name -> JPEG.

    ValueError where there are too few identities of four or more images.
    """
    generator = np.random.default_rng(seed)
    files = {f"{who}/{name}": data for who, images in people.items() for name, data in images.items()}
    origin = {path: path for path in files}
    truth: dict[str, set[Key]] = {what: set() for what in FOUND}
    large = sorted(who for who, images in people.items() if len(images) >= 4)
    needed = 14 * each
    if len(large) < needed:
        raise ValueError(f"{each} faults of every kind need {needed} identities of 4 or more images, not {len(large)}")
    left = iter(generator.permutation(large).tolist())

    def image_of(who: str) -> str:
        return f"{who}/{generator.choice(sorted(people[who]))}"

    def add(path: str, source: str, data: bytes) -> None:
        files[path], origin[path] = data, source

    for change in ("same", "quality", "size", "mirror"):
        for who in _next(left, each):
            source = image_of(who)
            target = f"{who}/copy_{change}.jpg"
            add(target, source, files[source] if change == "same" else _changed(files[source], change, 60))
            truth["copies"].add(frozenset((source, target)))
    for who, other in zip(_next(left, each), _next(left, each), strict=True):
        source, target = image_of(who), f"{other}/copy_conflict.jpg"
        add(target, source, _changed(files[source], "quality", 75))
        truth["copies under two names"].add(frozenset((source, target)))
        truth["wrong person"].add(target)
    for who, other in zip(_next(left, each), _next(left, each), strict=True):
        source, target = image_of(who), f"{other}/moved.jpg"
        add(target, source, files.pop(source))
        del origin[source]
        truth["wrong person"].add(target)
    for who in _next(left, each):
        for name in sorted(people[who])[::2]:
            add(f"{who}_again/{name}", f"{who}/{name}", files.pop(f"{who}/{name}"))
            del origin[f"{who}/{name}"]
        truth["one person, two names"].add(frozenset((who, f"{who}_again")))
    for who, other in zip(_next(left, each), _next(left, each), strict=True):
        for name in sorted(people[other]):
            add(f"{who}/other_{name}", f"{other}/{name}", files.pop(f"{other}/{name}"))
            del origin[f"{other}/{name}"]
        truth["two people, one name"].add(who)
    for what, change in (("blurred", "blur"), ("dark", "dark"), ("grey", "grey")):
        for who in _next(left, each):
            path = image_of(who)
            files[path] = _changed(files[path], change, 95)
            truth[what].add(path)
    return Planted(files, origin, truth, {path for path in files if path.endswith("/copy_size.jpg")})


def grade(findings: Path, planted: Planted, *, sure: bool = False) -> dict[str, tuple[int, int, int]]:
    """Count for each kind of fault: planted, found of these, found in all; only what is sure, where that is asked."""
    truth = planted.truth
    with open(findings, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sure"] == "sure" or not sure]
    counts = {}
    for what, (kinds, columns) in FOUND.items():
        found: set[Key] = set()
        for row in rows:
            if row["kind"] in kinds:
                named = [row[column] for column in columns]
                found.add(named[0] if len(named) == 1 else frozenset(named))
        found -= planted.soft if what == "blurred" else set()
        counts[what] = len(truth[what]), len(found & truth[what]), len(found)
    return counts


def table(counts: Mapping[str, tuple[int, int, int]]) -> str:
    lines = [f"{'planted':<24}{'number':>8}{'recall':>9}{'found':>8}{'precision':>11}"]
    for what, (number, hit, found) in counts.items():
        precision = f"{hit / found:.3f}" if found else "-"
        lines.append(f"{what:<24}{number:>8}{hit / max(number, 1):>9.3f}{found:>8}{precision:>11}")
    return "\n".join(lines)


def write(files: Mapping[str, bytes], folder: Path) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def read_people(images: Path, most: int, images_each: int) -> dict[str, dict[str, bytes]]:
    """Read identities of a folder or .tar: those with the most images first, then those with one, half each."""
    source = open_source("folder", images)[""]
    records = np.argsort(source.labels, kind="stable")
    start = np.searchsorted(source.labels[records], np.arange(len(source.classes) + 1))
    sizes = np.diff(start)
    many = [k for k in np.argsort(-sizes, kind="stable").tolist() if sizes[k] >= 4][:most]
    single = np.flatnonzero(sizes == 1)[:most].tolist()
    people = {}
    for k in [*many, *single]:
        chosen = records[start[k] : start[k + 1]][:images_each].tolist()
        people[source.classes[k]] = {source.name(i).split("/")[-1]: source.read(i) for i in chosen}
    return people


def _next(left: Iterator[str], number: int) -> list[str]:
    return [next(left) for _ in range(number)]


def _changed(data: bytes, change: str, quality: int) -> bytes:
    image = CHANGES[change](Image.open(io.BytesIO(data)).convert("RGB"))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """Plant, convert, embed, audit, grade; print two tables and append the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=Path, required=True, help="a folder of identities, or a .tar")
    add("--crop", type=float, help="central fraction that is kept (default: all)")
    add("--size", type=int, default=112)
    add("--model", type=Path, required=True, metavar="RUN", help="that embeds the images")
    add("--people", type=int, default=400, help="with four images or more, and as many with one (default 400)")
    add("--images-each", type=int, default=8, help="of one identity at most (default 8)")
    add("--each", type=int, default=20, help="faults of every kind (default 20)")
    add("--seed", type=int, default=0)
    add("--work", type=Path, help="keep everything in this folder")
    add("--device", default="cpu")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fastface-audit-") as temporary:
        work = options.work or Path(temporary)
        print(measure(work, options), end="")
    return 0


def measure(work: Path, options: Any) -> str:
    from benchmarks.common import RESULTS, append
    from benchmarks.report import circumstances
    from fastface.evaluation import embed_images
    from fastface.predictor import load_embedder

    planted = plant(
        read_people(options.images, options.people, options.images_each), each=options.each, seed=options.seed
    )
    write(planted.files, work / "raw")
    spec = ImageSpec((options.size, options.size), options.crop)
    convert(Options("folder", work / "raw", work / "shards", spec=spec))
    index = Index.open(work / "shards")
    images = ShardImages(index)
    embedder = load_embedder(options.model, device=options.device)
    rows = embed_images(images, np.arange(len(index)), embedder, progress="embedding")
    about = {"dataset_id": index.dataset_id, "shards": str(index.path), "model": str(options.model)}
    names = [index.name(i) for i in range(len(index))]
    write_embeddings(work / "embeddings", rows, index.label, names, index.classes, about)
    began = time.perf_counter()
    summary = audit(work / "embeddings", work / "audit")
    seconds = time.perf_counter() - began
    counts = {name: grade(work / "audit/findings.csv", planted, sure=name == "sure") for name in ("sure", "all")}
    shown = {name: {k: list(v) for k, v in found.items()} for name, found in counts.items()}
    settings = {"images": len(index), "identities": len(index.classes), "each": options.each, "seed": options.seed}
    append(
        RESULTS / "audit.jsonl", {**circumstances("audit"), **settings, "seconds": round(seconds, 1), "counts": shown}
    )
    return f"{summary}\nsure\n{table(counts['sure'])}\n\nall\n{table(counts['all'])}\n"


if __name__ == "__main__":
    sys.exit(main())
