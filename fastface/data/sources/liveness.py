"""[SOURCE/]SPLIT/live|spoof/... in a directory or .tar -> Source per split: label, attack, source and subject."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.data.sources import Source, encode_labels
from fastface.data.sources.scan import FileSource, left_out, scan
from fastface.data.sources.video import columns_of_frames

CLASSES = ("live", "spoof")  # labels 0 and 1
CLASS_FOLDERS = {
    **dict.fromkeys(("live", "real", "genuine", "bonafide", "bona-fide", "bona_fide"), "live"),
    **dict.fromkeys(("spoof", "fake", "attack", "attacks"), "spoof"),
}
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "devel", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
ATTACKS = {  # word in a path -> attack; the first word that is here decides
    **dict.fromkeys(("print", "printed", "prints", "paper", "photo", "photos", "poster"), "print"),
    **dict.fromkeys(("replay", "video", "screen", "display", "monitor", "tablet", "phone", "mobile"), "replay"),
    **dict.fromkeys(("mask", "masks", "3d", "3dmask", "silicone", "latex", "resin", "mannequin"), "mask"),
    **dict.fromkeys(("cut", "eyecut", "cutout"), "cut"),
    **dict.fromkeys(("warp", "warped"), "warp"),
    "still": "still",
    "planar": "planar",
    **dict.fromkeys(("makeup", "cosmetic"), "makeup"),
    **dict.fromkeys(("deepfake", "faceswap", "swap", "morph"), "digital"),
}
_SUBJECT = re.compile(r"(?:^|[^a-z])(?:client|subject|subj|person|sub|id)[_-]?(\d+)", re.IGNORECASE)


class Place(NamedTuple):
    """What a path tells of an image."""

    split: str | None
    source: str | None  # the folders above split and class
    label: str
    attack: str  # "none" for live, "unknown" where the path names none
    subject: str | None  # source and person


def open_liveness(path: Path, fps: float | None = None) -> dict[str, Source]:
    """Scan live and spoof images; columns attack, source (where there is one) and subject say what the path tells.

    The first folder named as a class decides the label, folders above it the split and the source. Columns are int32
    with names in `values`; the subject is -1 where it is not known. Images outside a class folder go to `skipped`.
    With `fps` every folder of images is a clip taken at that rate: columns clip int32 and time_ms int64 from its start.
    """
    found = scan(path)
    places = [_place(name) for name in found.names]
    found.skipped += [
        (name, "outside-a-class-folder") for name, at in zip(found.names, places, strict=True) if at is None
    ]
    found.skipped.sort()
    keep = [i for i, place in enumerate(places) if place is not None]
    known = [place for place in places if place is not None]
    splits = {place.split for place in known}
    for split in splits or {None}:
        live, spoof = (sum((p.split, p.label) == (split, name) for p in known) for name in CLASSES)
        if not live or not spoof:
            others = f". Left out: {left_out(found.skipped)}" if found.skipped else ""
            raise ValueError(
                f"{path} {split or ''}: {live} live and {spoof} spoof images; expected both, in folders such as "
                f"train/live and train/spoof (also {', '.join(CLASS_FOLDERS)}){others}"
            )
    if None in splits and len(splits) > 1:
        stray = next(found.names[i] for i in keep if places[i].split is None)  # pyright: ignore
        raise ValueError(f"{path} has splits, but {stray} is in none of them; move it into train, val or test")
    tables = [encode_labels([getattr(place, what) or "" for place in known]) for what in ("attack", "source")]
    people = encode_labels([place.subject for place in known if place.subject])[0]
    number = {name: k for k, name in enumerate(people)}
    subject = np.array([number.get(place.subject or "", -1) for place in known], np.int32)
    sources: dict[str, Source] = {}
    for split in sorted(splits, key=lambda split: ["train", "val", "test", None].index(split)):
        rows = np.array([k for k, place in enumerate(known) if place.split == split])
        chosen = found.take([keep[k] for k in rows])
        source = FileSource(path, chosen, (known[k].label for k in rows), found.skipped if not sources else [])
        for name, (names, numbers) in zip(("attack", "source"), tables, strict=True):
            if names != [""]:
                source.columns[name], source.values[name] = numbers[rows].astype(np.int32), names
        source.columns["subject"], source.values["subject"] = subject[rows], people
        if fps is not None:
            source.columns |= columns_of_frames(path, chosen.names, fps)
        sources[split or ""] = source
    return sources


def _place(name: str) -> Place | None:
    """Read a path; None where no folder of it is a class."""
    *folders, file = name.split("/")
    at = next((k for k, folder in enumerate(folders) if folder.lower() in CLASS_FOLDERS), None)
    if at is None:
        return None
    label = CLASS_FOLDERS[folders[at].lower()]
    split_at = next((k for k in range(at) if folders[k].lower() in SPLIT_FOLDERS), None)
    above = folders[:at] if split_at is None else folders[:split_at]
    between = [] if split_at is None else folders[split_at + 1 : at]  # CelebA-Spoof: train/SUBJECT/live/IMAGE
    below = folders[at + 1 :]
    source = above[0] if above else None
    words = [word for part in [*between, *below, Path(file).stem] for word in re.split(r"[-_. ]+", part.lower())]
    attack = next((ATTACKS[word] for word in words if word in ATTACKS), "unknown")
    person = _subject(between, below, file)
    return Place(
        split=None if split_at is None else SPLIT_FOLDERS[folders[split_at].lower()],
        source=source,
        label=label,
        attack="none" if label == "live" else attack,
        subject=None if person is None else f"{source or ''}/{person}".lstrip("/"),
    )


def _subject(between: list[str], below: list[str], file: str) -> str | None:
    """Find the person: a folder between split and class, one that is a number, or a word such as client007."""
    if between:
        return between[-1]
    for part in [*below, file]:
        if found := _SUBJECT.search(part):
            return found.group(1)
    return next((folder for folder in below if folder.isdecimal()), None)
