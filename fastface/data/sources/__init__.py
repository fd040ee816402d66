"""Raw datasets of any layout -> Source: classes, labels and the encoded bytes of every record."""

import csv
import os
import stat
import sys
from hashlib import blake2b
from pathlib import Path

import numpy as np

from fastface.data.geometry import Faces
from fastface.data.headers import Rejected
from fastface.data.names import Names as Names  # where the layouts find it
from fastface.spelling import nearest

SPLIT_BY = ("identity", "subject", "source", "clip", "image")
MAX_FILE_BYTES = 1 << 29  # 512 MB; 50 million pixels of 16-bit RGBA take 400 MB uncompressed


class Source:
    """A raw dataset, picklable, in columns so that ten million records fit."""

    classes: list[str]  # sorted by code point
    labels: np.ndarray  # int64 [N], index into classes
    columns: dict[str, np.ndarray]  # what the layout adds, [N] each; `subject` and `clip` steer --split
    values: dict[str, list[str]]  # what the numbers 0, 1, ... of some of these columns stand for
    boxes: np.ndarray | None = None  # float32 [N, 4] x0 y0 x1 y1 px: the face that --crop box cuts out
    landmarks: np.ndarray | None = None  # float32 [N, 5, 2] px; NaN where there are none
    faces: Faces | None = None  # all the faces of each image, where the layout lists them
    skipped: list[tuple[str, str]]  # (path, reason) of what the scan itself left out
    pairs: list[tuple[str, str, bool, int]] | None = None  # (name_a, name_b, same, fold), pair files only
    ordered: bool = False  # the order carries meaning and must be kept
    made_with: tuple[str, ...] = ()  # packages whose version decides the bytes that read gives

    def __init__(self, classes: list[str], labels: np.ndarray, skipped: list[tuple[str, str]] | None = None) -> None:
        self.classes, self.labels, self.skipped = classes, labels, [] if skipped is None else skipped
        self.columns, self.values = {}, {}

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """Return the path relative to the input with '/', or 'train.rec:12'."""
        raise NotImplementedError

    def read(self, i: int) -> bytes:
        """Return the encoded bytes as found; raises OSError or ValueError."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what reading has opened and a forked process must not inherit; reading opens it again."""


def encode_labels(names: list[str]) -> tuple[list[str], np.ndarray]:
    """Number class names by code point; returns the classes and int64 labels."""
    classes = sorted(set(names))
    number = {name: k for k, name in enumerate(classes)}
    return classes, np.fromiter((number[name] for name in names), np.int64, len(names))


def read_file(path: str | Path, *, follow: bool = False) -> bytes:
    """Read a regular file of bounded size; links only with `follow`, never a device or a pipe."""
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is not a regular file")
        check_size(str(path), status.st_size)
        return file.read(MAX_FILE_BYTES + 1)


def check_size(name: str, size: int) -> None:
    """Raise Rejected("too-large") for what cannot be an image."""
    if size > MAX_FILE_BYTES:
        raise Rejected("too-large", f"{name} has {size} bytes, more than {MAX_FILE_BYTES}")


def nearest_path(path: Path) -> str:
    """Return the nearest spelling among the siblings of a path that does not exist."""
    return nearest(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""


def printable(name: str) -> str:
    """Escape what a terminal or a UTF-8 file cannot hold, such as the bytes of a name that is not UTF-8."""
    return name.encode(sys.getdefaultencoding(), "backslashreplace").decode()


class _Subset(Source):
    """Some records of a source, in the given order, with labels renumbered."""

    def __init__(self, source: Source, keep: np.ndarray) -> None:
        self._source, self._keep = source, keep
        used, labels = np.unique(source.labels[keep], return_inverse=True)
        super().__init__([source.classes[k] for k in used], labels.astype(np.int64).reshape(-1), source.skipped)
        self.values = source.values
        self.columns = {name: column[keep] for name, column in source.columns.items()}
        self.boxes = None if source.boxes is None else source.boxes[keep]
        self.landmarks = None if source.landmarks is None else source.landmarks[keep]
        self.faces = None if source.faces is None else source.faces.take(keep)
        self.ordered, self.made_with = source.ordered, source.made_with
        if source.pairs is not None:
            kept = {source.name(int(i)) for i in keep}
            self.pairs = [pair for pair in source.pairs if pair[0] in kept and pair[1] in kept]

    def name(self, i: int) -> str:
        return self._source.name(int(self._keep[i]))

    def read(self, i: int) -> bytes:
        return self._source.read(int(self._keep[i]))

    def close(self) -> None:
        self._source.close()


def subset(source: Source, keep: np.ndarray) -> Source:
    """Take records by index; classes left without records vanish and labels are renumbered."""
    keep = np.asarray(keep)
    if keep.dtype == bool:
        keep = np.flatnonzero(keep)
    keep = keep.astype(np.int64)
    if keep.size and (keep.min() < 0 or keep.max() >= len(source)):
        raise ValueError(f"record numbers must lie in 0..{len(source) - 1}, found {keep.min()}..{keep.max()}")
    if isinstance(source, _Subset):
        return _Subset(source._source, source._keep[keep])
    return _Subset(source, keep)


def _read_class_file(path: Path, classes: set[str]) -> list[str]:
    """Read one class name per line; text after a tab is dropped, so LFW's people files read as they are.

    A first line that is a number is a count, unless a class has that name and as many lines do not follow.
    """
    lines = path.read_text("utf-8-sig", "surrogateescape").split("\n")
    names = [name for line in lines if (name := line.split("\t")[0].strip())]
    if names and names[0].isdigit() and (names[0] not in classes or int(names[0]) == len(names) - 1):
        names = names[1:]
    missing = [name for name in names if name not in classes]
    if missing:
        hint = nearest(missing[0], classes)
        raise ValueError(
            f"{path}: {len(missing)} of {len(names)} names are no classes of the input, first {missing[0]!r}{hint}"
        )
    if not names:
        raise ValueError(f"{path} holds no class names; write one per line")
    return names


def _read_image_file(path: Path) -> set[str] | None:
    """Read the column `image` of a csv, such as the audit's exclude.csv; None where the file is no such csv."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        if "image" not in (rows.fieldnames or []) or len(rows.fieldnames or []) < 2:
            return None
        return {row["image"] for row in rows}


def _without_images(source: Source, path: Path, images: set[str]) -> Source:
    """Drop images by name; each joins `skipped` as "excluded"."""
    named = [i for i in range(len(source)) if source.name(i) in images]
    missing = images - {source.name(i) for i in named}
    if missing:
        first = min(missing)
        hint = nearest(first, [source.name(i) for i in range(min(len(source), 100_000))])
        raise ValueError(
            f"{path}: {len(missing):,} of {len(images):,} images are not in the input, first {first!r}{hint}; "
            "make the audit of shards that were made of this input"
        )
    if not named:
        return source
    if len(named) == len(source):
        raise ValueError(f"no image is left by exclude {path}")
    left_out = [(source.name(i), "excluded") for i in named]
    kept = subset(source, np.delete(np.arange(len(source)), named))
    kept.skipped = [*source.skipped, *left_out]
    return kept


def include_exclude(source: Source, include_file: str | Path | None, exclude_file: str | Path | None) -> Source:
    """Keep the classes named in one file and drop those named in another; either may be None.

    What is dropped may also be a csv of images (a header with `image` and other columns), as the audit writes it;
    then classes that are left without images vanish.
    """
    images = None if exclude_file is None else _read_image_file(Path(exclude_file))
    if exclude_file is not None and images is not None:
        source, exclude_file = _without_images(source, Path(exclude_file), images), None
    wanted, classes = np.ones(len(source.classes), bool), set(source.classes)
    if include_file is not None:
        named = set(_read_class_file(Path(include_file), classes))
        wanted &= np.array([name in named for name in source.classes])
    if exclude_file is not None:
        named = set(_read_class_file(Path(exclude_file), classes))
        wanted &= np.array([name not in named for name in source.classes])
    if wanted.all():
        return source
    if not wanted.any():
        raise ValueError(f"no class is left by include {include_file} and exclude {exclude_file}")
    return subset(source, np.flatnonzero(wanted[source.labels]))


def enough_images(source: Source, least: int) -> Source:
    """Leave out identities with fewer than `least` images; each image joins `skipped` as "identity-too-small"."""
    counts = np.bincount(source.labels, minlength=len(source.classes))
    small = counts[source.labels] < least
    if not small.any():
        return source
    left_out = [(source.name(int(i)), "identity-too-small") for i in np.flatnonzero(small)]
    kept = subset(source, ~small)
    kept.skipped = [*source.skipped, *left_out]
    return kept


def split_by_identity(
    source: Source, fractions: dict[str, float], seed: int, by: str = "identity"
) -> dict[str, Source]:
    """Divide the identities, subjects, sources, clips or images of a source into named parts.

    Identities are the subjects where a column tells them, else the classes; frames are never parted from their clip.
    The order is that of blake2b("seed:name"), so it depends on the names alone, not on a library's generator.
    Parts that share classes still number them each for itself: match them by class name.
    """
    if by not in SPLIT_BY:
        raise ValueError(f"by {by!r}{nearest(by, SPLIT_BY)}; choose {', '.join(SPLIT_BY)}")
    total = sum(fractions.values())
    if not fractions or min(fractions.values()) <= 0 or abs(total - 1) > 1e-6:
        raise ValueError(f"split fractions {fractions} must be positive and sum to 1, not {total:g}")
    if source.pairs is not None:
        raise ValueError("a pair file cannot be split: its pairs would lose their partners")
    noun = "identities" if by == "identity" else f"{by}s"
    names, unit = _units(source, by)
    if len(names) < len(fractions):
        raise ValueError(f"{len(names)} {noun} cannot fill {len(fractions)} parts; add data or drop parts")
    order = np.array(sorted(range(len(names)), key=lambda k: (_digest(seed, names[k]), names[k])), np.int64)
    cuts = np.rint(np.cumsum(list(fractions.values())) / total * len(names)).astype(np.int64)
    parts: dict[str, Source] = {}
    for part, first, last in zip(fractions, [0, *cuts[:-1]], cuts, strict=True):
        if first == last:
            raise ValueError(f"part {part!r} of {fractions} gets none of {len(names)} {noun}; raise its fraction")
        chosen = np.zeros(len(names), bool)
        chosen[order[first:last]] = True
        parts[part] = subset(source, np.flatnonzero(chosen[unit]))
    return parts


def _units(source: Source, by: str) -> tuple[list[str], np.ndarray]:
    """Name what a split keeps whole, and say which of these each record belongs to (int64 [N])."""
    if by == "image" and "clip" in source.columns:
        raise ValueError(
            "frames of one clip are nearly the same image, and a split by image would put them into several parts: "
            "split by clip (--split-by clip), subject or source"
        )
    if by == "image":
        return [source.name(i) for i in range(len(source))], np.arange(len(source))
    if by in ("clip", "source", "subject") and by not in source.columns:
        raise ValueError(
            f"nothing tells the {by} of an image here, so a split by {by} cannot be made; there are "
            f"{', '.join(name for name in SPLIT_BY[1:] if name in (*source.columns, 'image'))} (--split-by)"
        )
    if by == "clip":
        _, first, unit = np.unique(source.columns["clip"], return_index=True, return_inverse=True)
        return [source.name(int(i)) for i in first], unit.reshape(-1)
    if by == "identity" and "subject" not in source.columns:
        return source.classes, source.labels
    column = "subject" if by == "identity" else by
    used, unit = np.unique(source.columns[column], return_inverse=True)
    if used[0] < 0:
        unknown = int(np.argmin(source.columns[column]))
        raise ValueError(
            f"the paths do not tell whose face every image shows, such as {printable(source.name(unknown))}: a split "
            f"by {by} cannot be made; split by source or clip where there are several (--split-by source), or by image "
            "(--split-by image), knowing that people will be in both parts"
        )
    return [source.values[column][k] for k in used], unit.reshape(-1)


def _digest(seed: int, name: str) -> bytes:
    return blake2b(f"{seed}:{name}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
