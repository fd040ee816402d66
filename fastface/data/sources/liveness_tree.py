"""[SOURCE/]SPLIT/live|spoof/... -> what a path tells: split, source, label, attack and person."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from fastface.data.sources.liveness_lists import Place

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


def read_tree(names: Iterable[str]) -> dict[str, Place]:
    """Read the paths that have a folder named as a class: it decides the label, folders above it split and source."""
    return {name: place for name in names if (place := _place(name)) is not None}


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
        details={},
    )


def _subject(between: list[str], below: list[str], file: str) -> str | None:
    """Find the person: a folder between split and class, one that is a number, or a word such as client007."""
    if between:
        return between[-1]
    for part in [*below, file]:
        if found := _SUBJECT.search(part):
            return found.group(1)
    return next((folder for folder in below if folder.isdecimal()), None)
