"""A liveness dataset as its makers pack it -> what each path and label file tells: split, label, attack, person ...

One parser per dataset, joined in LAYOUTS. Where the facts are from stands at each parser. What could be wrong in a
label file is refused with the file and the line; a path that fits no rule of the layout is told as left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from fastface.data.sources.liveness_boxes import BoxReader, celeba_box, eye_boxes, frame_boxes, row_boxes
from fastface.data.sources.liveness_lists import Place, read_celeba_spoof, read_nuaa, read_protocol


class Layout(NamedTuple):
    """How one dataset lies on the disk."""

    tell: re.Pattern[str]  # a path that only this dataset has
    read: Callable[[Path, Iterable[str]], dict[str, Place]]  # (root, videos or images) -> those it knows
    help: str
    clips: bool = True  # a unit is a video, or a folder of a video's frames; else an image
    boxes: BoxReader | None = None  # where the faces are
    shares_people: bool = False  # its official splits do
    protocol: Callable[[Path, str, Mapping[str, Place]], dict[str, Place]] | None = None  # the part of a protocol


def _by_name(
    pattern: str, place: Callable[[re.Match[str]], Place | None]
) -> Callable[[Path, Iterable[str]], dict[str, Place]]:
    """Read units by their path alone: the end of it fits `pattern`, and `place` makes sense of the groups."""
    compiled = re.compile(rf"(?:^|/){pattern}$")

    def read(root: Path, units: Iterable[str]) -> dict[str, Place]:
        matches = {unit: found for unit in units if (found := compiled.search(unit))}
        places = {unit: place(found) for unit, found in matches.items()}
        return {unit: found for unit, found in places.items() if found is not None}

    return read


def _agree(found: re.Match[str], what: str, folder: str, name: str) -> None:
    if folder != name:
        raise ValueError(f"{found.string}: the folder says {what} {folder}, the file name {name}; one of them is wrong")


CASIA_VIDEOS = {  # number, or HR_ and number -> attack and quality of the camera
    **{name: ("none", quality) for name, quality in (("1", "normal"), ("2", "low"), ("HR_1", "high"))},
    **{name: ("warp", quality) for name, quality in (("3", "normal"), ("4", "low"), ("HR_2", "high"))},
    **{name: ("cut", quality) for name, quality in (("5", "normal"), ("6", "low"), ("HR_3", "high"))},
    **{name: ("replay", quality) for name, quality in (("7", "normal"), ("8", "low"), ("HR_4", "high"))},
}


def _casia(found: re.Match[str]) -> Place | None:
    """Read train_release/SUBJECT/NAME.avi.

    Zhang et al. 2012, A face antispoofing database with diverse attacks, section 2: real, warped photo, cut photo,
    video, each by three cameras; names as in bob.db.casia_fasd (models.py). Its test people are others than the
    training people, though both are numbered from 1.
    """
    split, subject, name = found.groups()
    if name not in CASIA_VIDEOS:
        return None
    attack, quality = CASIA_VIDEOS[name]
    details = {"device": f"{quality}-quality"}
    return Place(split, "casia-fasd", _label(attack == "none"), attack, f"{split}-{subject}", details)


def _replay(found: re.Match[str]) -> Place:
    """Read SPLIT/real/clientNNN_sessionNN_webcam_authenticate_LIGHT_N.mov and SPLIT/attack/fixed|hand/...

    Chingovska et al. 2012, On the effectiveness of local binary patterns in face anti-spoofing, and bob.db.replay
    (models.py): attack_DEVICE_clientNNN_sessionNN_SAMPLE_photo|video_LIGHT.mov, where DEVICE is what was held before
    the camera (print, mobile, highdef) and SAMPLE the camera that made what it shows.
    """
    split, support, device, subject, session, medium, light = found.group(
        "split", "support", "device", "subject", "session", "medium", "light"
    )
    details = {
        "medium": "none" if device is None else f"{device}-{medium}",
        "support": support or "none",
        "illumination": light,
        "session": session.lstrip("0"),
    }
    attack = "none" if device is None else "print" if device == "print" else "replay"
    return Place(_SPLITS[split], "replay-attack", _label(device is None), attack, subject, details)


OULU_FILES = {"1": ("none", "none"), "2": ("print", "print-1"), "3": ("print", "print-2")} | {
    "4": ("replay", "display-1"),
    "5": ("replay", "display-2"),
}


def _oulu(found: re.Match[str]) -> Place | None:
    """Read Train_files/P_S_UU_F.avi: phone 1 to 6, session 1 to 3, user 1 to 55, and what it shows.

    Boulkenafet et al. 2017, OULU-NPU: a mobile face presentation attack database with real-world variations, section
    III: 1 real, 2 and 3 printers 1 and 2, 4 and 5 displays 1 and 2.
    """
    split, phone, session, user, file = found.groups()
    if file not in OULU_FILES:
        return None
    attack, medium = OULU_FILES[file]
    details = {"device": f"phone-{phone}", "session": session, "medium": medium}
    return Place(_SPLITS[split], "oulu-npu", _label(file == "1"), attack, user, details)


SIW_TYPES = {"1": "none", "2": "print", "3": "replay"}
SIW_SENSORS = {"1": "canon-eos-t6", "2": "logitech-c920"}


def _siw(found: re.Match[str]) -> Place | None:
    """Read Train|Test/live|spoof/SUBJECT/SUBJECT-SENSOR-TYPE-MEDIUM-SESSION.mov.

    Liu, Jourabloo, Liu 2018, Learning deep models for face anti-spoofing, and the dataset's page
    (cvlab.cse.msu.edu/spoof-in-the-wild-siw-face-anti-spoofing-database.html); bob.db.siw reads the names so.
    """
    split, label, folder, subject, sensor, kind, medium, session = found.groups()
    if kind not in SIW_TYPES:
        return None
    _agree(found, "subject", folder, subject)
    _agree(found, "class", label, _label(kind == "1"))
    attack = SIW_TYPES[kind]
    details = {
        "device": SIW_SENSORS.get(sensor, f"sensor-{sensor}"),
        "medium": "none" if kind == "1" else f"{attack}-{medium}",
        "session": session,
    }
    return Place(_SPLITS[split], "siw", label, attack, subject, details)


def _lcc(found: re.Match[str]) -> Place:
    """Read LCC_FASD_training|development|evaluation/real|spoof/IMAGE.

    Timoshenko et al. 2019, Large crowdcollected facial anti-spoofing dataset. It says nothing of people and attacks.
    """
    split, label = found.groups()
    live = label == "real"
    return Place(_SPLITS[split], "lcc-fasd", _label(live), "none" if live else "unknown", None, {})


_SPLITS = {
    **dict.fromkeys(("train", "Train", "training"), "train"),
    **dict.fromkeys(("devel", "Dev", "development"), "val"),
    **dict.fromkeys(("test", "Test", "evaluation"), "test"),
}
_REPLAY = (
    r"(?P<split>train|devel|test)/(?:real/|attack/(?P<support>fixed|hand)/attack_(?P<device>print|mobile|highdef)_)"
    r"client(?P<subject>\d+)_session(?P<session>\d+)_"
    r"(?:webcam_authenticate|(?:mobile|highdef)_(?P<medium>photo|video))_(?P<light>adverse|controlled)(?:_\d+)?(?:\.\w+)?"
)
_IMAGE = r"[^/]+\.\w+"


def _label(live: bool) -> str:
    return "live" if live else "spoof"


LAYOUTS: dict[str, Layout] = {
    "casia-fasd": Layout(
        re.compile(r"(?:^|/)(?:train|test)_release/\d+/(?:HR_)?\d(?:\.avi)?(?:/|$)"),
        _by_name(r"(train|test)_release/(\d+)/((?:HR_)?\d)(?:\.avi)?", _casia),
        "train_release|test_release/SUBJECT/1.avi ... HR_4.avi",
        boxes=frame_boxes,
    ),
    "celeba-spoof": Layout(
        re.compile(r"(?:^|/)metas/intra_test/(?:train|test)_label\.json$"),
        read_celeba_spoof,
        "Data/train|test/SUBJECT/live|spoof/IMAGE, IMAGE_BB.txt, metas/intra_test/*_label.json",
        clips=False,
        boxes=celeba_box,
    ),
    "nuaa": Layout(
        re.compile(r"(?:^|/)(?:client|imposter)_(?:train|test)_(?:raw|face|normalized)\.txt$", re.IGNORECASE),
        read_nuaa,
        "ClientRaw|ImposterRaw/SUBJECT/IMAGE (or ...Face, ...Normalized), client_train_raw.txt and the other lists",
        clips=False,
        shares_people=True,
    ),
    "replay-attack": Layout(
        re.compile(r"(?:^|/)(?:train|devel|test)/(?:real/|attack/(?:fixed|hand)/attack_\w+?_)client\d+_session\d+_"),
        _by_name(_REPLAY, _replay),
        "train|devel|test/real|attack/..., face-locations/...face",
        boxes=frame_boxes,
    ),
    "oulu-npu": Layout(
        re.compile(r"(?:^|/)(?:Train|Dev|Test)_files/\d_\d_\d\d_\d(?:\.\w+)?(?:/|$)"),
        _by_name(r"(Train|Dev|Test)_files/([1-6])_([1-3])_(\d\d)_(\d)(?:\.avi)?", _oulu),
        "Train_files|Dev_files|Test_files/P_S_UU_F.avi and .txt, Protocols/",
        boxes=eye_boxes,
        protocol=read_protocol,
    ),
    "siw": Layout(
        re.compile(r"(?:^|/)(?:Train|Test)/(?:live|spoof)/\d+/\d+-\d-\d-\d-\d(?:\.\w+)?(?:/|$)"),
        _by_name(r"(Train|Test)/(live|spoof)/(\d+)/(\d+)-(\d)-(\d)-(\d)-(\d)(?:\.(?:mov|mp4))?", _siw),
        "Train|Test/live|spoof/SUBJECT/ID-SENSOR-TYPE-MEDIUM-SESSION.mov and .face",
        boxes=row_boxes,
    ),
    "lcc-fasd": Layout(
        re.compile(r"(?:^|/)LCC_FASD_(?:training|development|evaluation)/(?:real|spoof)/"),
        _by_name(rf"LCC_FASD_(training|development|evaluation)/(real|spoof)/{_IMAGE}", _lcc),
        "LCC_FASD_training|development|evaluation/real|spoof/IMAGE.png",
        clips=False,
    ),
}
