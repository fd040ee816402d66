"""Label files of liveness datasets -> a Place for each path that they name, or where exactly they are wrong."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from fastface.spelling import nearest


class Place(NamedTuple):
    """What a dataset tells of a video or an image."""

    split: str | None
    source: str | None  # the dataset, or the folders above split and class
    label: str
    attack: str  # "none" for live, "unknown" where nothing is told
    subject: str | None  # unique within the source
    details: Mapping[str, str]  # further columns: device, medium, session, illumination ..., the same for all


SPOOF_ATTRIBUTES, SPOOF_TYPE, ILLUMINATION, ENVIRONMENT, SPOOF_LABEL = 44, 40, 41, 42, 43
SPOOF_TYPES = [  # attack, medium
    ("none", "none"),
    ("print", "photo"),
    ("print", "poster"),
    ("print", "a4"),
    ("cut", "face-mask"),
    ("cut", "upper-body-mask"),
    ("cut", "region-mask"),
    ("replay", "pc"),
    ("replay", "pad"),
    ("replay", "phone"),
    ("mask", "3d-mask"),
]
ILLUMINATIONS = ["none", "normal", "strong", "back", "dark"]
ENVIRONMENTS = ["none", "indoor", "outdoor"]


def read_celeba_spoof(root: Path, images: Iterable[str]) -> dict[str, Place]:
    """Read metas/intra_test/train_label.json and test_label.json: path -> 44 numbers.

    Zhang et al. 2020, CelebA-Spoof: large-scale face anti-spoofing dataset with rich annotations (arXiv 2007.12342),
    section 3: paper cuts are the masks 4 to 6. Numbers 0 to 39 are CelebA's attributes, 43 is 0 for live and 1 for
    spoof (github.com/ZhangYuanhan-AI/CelebA-Spoof, intra_dataset_code/client.py).
    """
    there = set(images)
    found: dict[str, Place] = {}
    for split in ("train", "test"):
        for file in sorted(root.rglob(f"metas/intra_test/{split}_label.json")):
            above = file.parents[2].relative_to(root).as_posix()
            prefix = "" if above == "." else above + "/"
            table, before = _load_labels(file), len(found)
            for path, numbers in table.items():
                place = _spoof_place(file, path, numbers, split)
                if prefix + path in there:
                    if prefix + path in found:
                        raise ValueError(f"{file}: {path!r} is in the other split's list too; a split holds it once")
                    found[prefix + path] = place
            _tell_missing(file, len(table), len(found) - before)
    return found


def _tell_missing(file: Path, listed: int, there: int) -> None:
    if there < listed:
        print(f"{file}: {listed - there:,} of the {listed:,} that it lists are not there", file=sys.stderr)


def _load_labels(file: Path) -> dict[str, list]:
    try:
        table = json.loads(file.read_text("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} line {error.lineno}: {error.msg}; unpack the dataset anew") from None
    if not isinstance(table, dict):
        raise ValueError(f"{file} line 1: expected {{path: [44 numbers]}}, found a {type(table).__name__}")
    return table


def _spoof_place(file: Path, path: str, numbers: list, split: str) -> Place:
    where = f"{file}: {path!r}"
    if not isinstance(numbers, list) or len(numbers) != SPOOF_ATTRIBUTES or not all(type(n) is int for n in numbers):
        raise ValueError(f"{where} has {str(numbers)[:40]}..., expected {SPOOF_ATTRIBUTES} whole numbers")
    kind, light, environment, label = (numbers[k] for k in (SPOOF_TYPE, ILLUMINATION, ENVIRONMENT, SPOOF_LABEL))
    for what, value, known in (
        ("spoof type (number 40)", kind, SPOOF_TYPES),
        ("illumination (number 41)", light, ILLUMINATIONS),
        ("environment (number 42)", environment, ENVIRONMENTS),
        ("label (number 43)", label, ("live", "spoof")),
    ):
        if not 0 <= value < len(known):
            raise ValueError(f"{where}: {what} is {value}, expected 0 to {len(known) - 1}")
    parts = path.split("/")
    if len(parts) < 3 or parts[-2] not in ("live", "spoof"):
        raise ValueError(f"{where} is not SPLIT/SUBJECT/live|spoof/IMAGE")
    told = {"live" if kind == 0 else "spoof", ("live", "spoof")[label], parts[-2]}
    if len(told) > 1:
        raise ValueError(f"{where} lies in {parts[-2]}, has label {label} and spoof type {kind}: they contradict")
    attack, medium = SPOOF_TYPES[kind]
    details = {"medium": medium, "illumination": ILLUMINATIONS[light], "environment": ENVIRONMENTS[environment]}
    return Place(split, "celeba-spoof", parts[-2], attack, parts[-3], details)


_NUAA_LIST = re.compile(r"(client|imposter)_(train|test)_(raw|face|normalized)\.txt", re.IGNORECASE)
_NUAA_NAME = re.compile(r"(\d{4})_\d\d_\d\d_(\d\d)_\d+")  # subject, glasses, place and light, session, number


def read_nuaa(root: Path, images: Iterable[str]) -> dict[str, Place]:
    r"""Read client_train_raw.txt and the three lists beside it: a path such as 0001\0001_00_00_01_0.jpg a line.

    Tan et al. 2010, Face liveness detection from a single image with sparse low rank bilinear discriminative model,
    and the dataset's readme.txt: ID_GLASSES_POSITION_SESSION_NUMBER below ClientRaw and ImposterRaw. Training images
    are those of sessions 1 and 2, test images those of session 3, so some people are in both. Behind the path the
    lists of detected faces have numbers of the detector, which say nothing of the pictures cut out: they are ignored.
    """
    there = set(images)
    lists = sorted(file for file in root.rglob("*.txt") if _NUAA_LIST.fullmatch(file.name))
    forms = sorted({_NUAA_LIST.fullmatch(file.name)[3].lower() for file in lists})  # pyright: ignore
    if len(forms) > 1 or len({file.parent for file in lists}) > 1:
        folders = ", ".join(sorted({str(file.parent) for file in lists}))
        raise ValueError(f"{root} holds NUAA's pictures in several forms ({folders}): give one of these folders")
    found: dict[str, Place] = {}
    for file in lists:
        who, split, form = _NUAA_LIST.fullmatch(file.name).groups()  # pyright: ignore
        above = file.parent.relative_to(root).as_posix()
        folder = ("" if above == "." else above + "/") + f"{who.capitalize()}{form.capitalize()}"
        listed, before = 0, len(found)
        for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), 1):
            if not line.strip():
                continue
            path = line.split()[0].replace("\\", "/")
            named = _NUAA_NAME.match(path.rpartition("/")[2])
            if named is None or path.split("/")[0] != named[1]:
                said = line.strip()[:60]
                raise ValueError(f"{file} line {number}: expected 0001/0001_00_00_01_0.jpg, found {said!r}")
            listed += 1
            name = f"{folder}/{path}"
            if name in found:
                raise ValueError(f"{file} line {number}: {path} is listed already, for {found[name].split}")
            if name in there:
                live = who.lower() == "client"
                details = {"session": named[2].lstrip("0")}
                found[name] = Place(
                    split.lower(), "nuaa", "live" if live else "spoof", "none" if live else "print", named[1], details
                )
        _tell_missing(file, listed, len(found) - before)
    return found


_PROTOCOL = re.compile(r"([1-4])(?:\.([1-6]))?")
_PROTOCOL_LINE = re.compile(r"([+-]?\d+)\s*,\s*(\d_\d_\d\d_\d)")
_PROTOCOL_LABELS = {"1": (1,), "2": (-1,), "3": (-1,), "4": (-1, -2), "5": (-1, -2)}  # -1 also for any attack
_PROTOCOL_FILES = {"Train": "train", "Dev": "val", "Test": "test"}


def read_protocol(root: Path, protocol: str, places: Mapping[str, Place]) -> dict[str, Place]:
    """Choose the videos of OULU-NPU's protocol 1, 2, 3.1 to 3.6 or 4.1 to 4.6, as Protocols/Protocol_K lists them.

    Lines are LABEL,P_S_UU_F with +1 for real, -1 for print and -2 for replay (the dataset's readme); Train.txt,
    Dev.txt and Test.txt, or Train_1.txt ... for the folds of protocols 3 and 4.
    """
    asked = _PROTOCOL.fullmatch(protocol)
    if asked is None:
        raise ValueError(f"--protocol {protocol!r} is none of 1, 2, 3.1 to 3.6, 4.1 to 4.6")
    folders = sorted(root.rglob(f"Protocol_{asked[1]}"))
    if not folders:
        raise ValueError(f"--protocol {protocol}: {root} has no folder Protocol_{asked[1]}")
    by_name = {re.sub(r"\.\w+$", "", unit).rpartition("/")[2]: unit for unit in places}
    chosen: dict[str, Place] = {}
    for stem, split in _PROTOCOL_FILES.items():
        file = folders[0] / f"{stem}{'_' + asked[2] if asked[2] else ''}.txt"
        if not file.is_file():
            hint = nearest(file.name, [other.name for other in folders[0].iterdir()])
            raise ValueError(f"--protocol {protocol}: there is no {file}{hint}")
        listed, before = 0, len(chosen)
        for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), 1):
            if not line.strip():
                continue
            named = _PROTOCOL_LINE.fullmatch(line.strip())
            if named is None:
                raise ValueError(f"{file} line {number}: expected +1,1_1_01_1, found {line.strip()[:60]!r}")
            label, name = named.groups()
            if int(label) not in _PROTOCOL_LABELS.get(name[-1], ()):
                raise ValueError(f"{file} line {number}: label {label} contradicts the name {name}")
            listed += 1
            unit = by_name.get(name)
            if unit is None:
                continue
            if places[unit].split != split:
                raise ValueError(f"{file} line {number}: {name} lies in another split, {unit}")
            chosen[unit] = places[unit]
        _tell_missing(file, listed, len(chosen) - before)
    return chosen
