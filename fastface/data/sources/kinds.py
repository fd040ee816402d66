"""The name of a raw layout -> how it is opened, and what may be said about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastface.data.sources import Source, nearest_path
from fastface.data.sources.bin import open_bin
from fastface.data.sources.celeba import open_celeba, open_vggface2
from fastface.data.sources.folder import open_folder
from fastface.data.sources.listing import open_list
from fastface.data.sources.liveness import open_liveness
from fastface.data.sources.rec import open_rec
from fastface.data.sources.table import open_table
from fastface.data.sources.video import open_video
from fastface.data.sources.widerface import open_widerface
from fastface.spelling import nearest


class Kind(NamedTuple):
    """One raw layout."""

    open: Callable[..., Mapping[str, Source]]  # (path, **settings) -> {"": source}, or one source per split
    help: str
    takes: tuple[str, ...] = ()  # the settings it knows
    lossless: bool = False  # whether its images become PNG where nothing else is asked for


def _alone(opens: Callable[..., Source]) -> Callable[..., Mapping[str, Source]]:
    return lambda path, **settings: {"": opens(path, **settings)}


KINDS: dict[str, Kind] = {
    "folder": Kind(open_folder, "PERSON/IMAGE.*, a directory or an uncompressed .tar, or train/ and val/ with such"),
    "list": Kind(_alone(open_list), "a csv of path,label and columns of your own", ("root",)),
    "rec": Kind(_alone(open_rec), "InsightFace's .rec (with its .idx)"),
    "bin": Kind(_alone(open_bin), "InsightFace's pair file"),
    "widerface": Kind(
        _alone(open_widerface), "WIDER FACE: EVENT/IMAGE.jpg and wider_face_*_bbx_gt.txt", ("annotations",)
    ),
    "liveness": Kind(
        open_liveness,
        "[SOURCE/]train|val|test/live|spoof/..., or one of the datasets of --layout",
        ("layout", "fps", "protocol"),
        lossless=True,
    ),
    "video": Kind(open_video, "CLASS/CLIP.mp4, .avi, .mov ... or CLASS/CLIP/FRAME.jpg", ("fps",)),
    "table": Kind(open_table, "Parquet files of image bytes and labels, as on the Hugging Face hub"),
    "celeba": Kind(open_celeba, "a folder with img_align_celeba or img_celeba and CelebA's lists"),
    "vggface2": Kind(open_vggface2, "train/ and test/ as `folder`, with loose_bb_*.csv and loose_landmark_*.csv"),
}


def open_source(kind: str, path: str | Path, **settings: Any) -> dict[str, Source]:
    """Scan a raw dataset: {"": source}, or one source per split where the layout has them.

    `settings` that are None count as not given; one that the kind does not know is refused.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}{nearest(kind, KINDS)}; kinds: {', '.join(KINDS)}")
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist{nearest_path(path)}")
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given:
        if name not in KINDS[kind].takes:
            takers = [other for other in KINDS if name in KINDS[other].takes]
            raise ValueError(f"{name} is for kind {' and '.join(takers)} only, not {kind}; leave it out")
    return dict(KINDS[kind].open(path, **given))
