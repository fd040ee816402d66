"""Face files beside a video or image -> a box per frame, x0 y0 x1 y1 px, NaN where no face was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

# (root, video or image, numbers of frames int64 [n]) -> float32 [n, 4]; None where there is no such file
BoxReader = Callable[[Path, str, np.ndarray], np.ndarray | None]

ORIENTATION = 0x0112  # EXIF
CELEBA_SIDE = 224  # CelebA-Spoof's boxes are those of the image stretched to this width and height
# Of an upright face box by its eyes, in distances of the eyes from the point between them: left, top, right, bottom.
# Medians of MTCNN's boxes (public weights) on 500 LFW images, left and right averaged; half of all lie within 0.13.
EYE_BOX = np.array([-1.09, -1.16, 1.09, 1.81])


def frame_boxes(root: Path, unit: str, numbers: np.ndarray) -> np.ndarray | None:
    """Read VIDEO.face, beside the video or below face-locations/: FRAME X Y WIDTH HEIGHT a line, from frame 0.

    So bob.db.replay and bob.db.casia_fasd read them (models.py, File.bbx); zeros, or no line, where no face was found.
    """
    file = _beside(root, unit, ".face")
    if file is None:
        return None
    known = {int(row[0]): row[1:] for row in _rows(file, 5, "FRAME X Y WIDTH HEIGHT")}
    boxes = _lookup(known, numbers)
    boxes[:, 2:] += boxes[:, :2]
    return _without_empty(boxes)


def row_boxes(root: Path, unit: str, numbers: np.ndarray) -> np.ndarray | None:
    """Read SiW's VIDEO.face: X0 Y0 X1 Y1 of each frame in turn, zeros where no face was found."""
    file = _beside(root, unit, ".face")
    if file is None:
        return None
    return _without_empty(_lookup(dict(enumerate(_rows(file, 4, "X0 Y0 X1 Y1"))), numbers))


def eye_boxes(root: Path, unit: str, numbers: np.ndarray) -> np.ndarray | None:
    """Read OULU-NPU's VIDEO.txt, FRAME,XL,YL,XR,YR of the eyes (bob.db.oulunpu, File.annotations), as face boxes.

    The dataset has no boxes; see EYE_BOX. Which eye comes first does not matter.
    """
    file = _beside(root, unit, ".txt")
    if file is None:
        return None
    known = {int(row[0]): row[1:] for row in _rows(file, 5, "FRAME,XL,YL,XR,YR", ",")}
    eyes = _lookup(known, numbers)
    middle, apart = (eyes[:, :2] + eyes[:, 2:]) / 2, np.linalg.norm(eyes[:, :2] - eyes[:, 2:], axis=1)
    return _without_empty(np.tile(middle, 2) + apart[:, None] * EYE_BOX.astype(np.float32))


def celeba_box(root: Path, unit: str, numbers: np.ndarray) -> np.ndarray | None:
    """Read IMAGE_BB.txt: X Y WIDTH HEIGHT SCORE in an image of 224 x 224, whatever its true size (CelebA-Spoof)."""
    image = root / unit
    file = image.with_name(image.stem + "_BB.txt")
    if not file.is_file():
        return None
    rows = list(_rows(file, 5, "X Y WIDTH HEIGHT SCORE"))
    if len(rows) != 1:
        raise ValueError(f"{file} line {len(rows)}: expected one line X Y WIDTH HEIGHT SCORE, found {len(rows)}")
    try:
        with Image.open(image) as picture:  # reads the header only
            width, height = picture.size
            if "exif" in picture.info and picture.getexif().get(ORIENTATION, 1) >= 5:  # getexif alone decodes a PNG
                width, height = height, width
    except Exception:  # foreign bytes: the conversion itself says what is wrong with them
        return None
    box = np.array([rows[0][:4]], np.float32)
    box[:, 2:] += box[:, :2]
    return _without_empty(box * np.array([width, height, width, height], np.float32) / CELEBA_SIDE)


def _beside(root: Path, unit: str, extension: str) -> Path | None:
    """Find the file of a video: with its name, or with its path below a folder face-locations further up."""
    parts = list(Path(unit).with_suffix(extension).parts)
    places = [parts] + [[*parts[:k], "face-locations", *parts[k:]] for k in range(len(parts))]
    return next((file for part in places if (file := root.joinpath(*part)).is_file()), None)


def _rows(file: Path, cells: int, expected: str, separator: str | None = None) -> Iterator[list[float]]:
    for number, line in enumerate(file.read_text("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(cell) for cell in line.split(separator)]
        except ValueError:
            row = []
        if len(row) != cells or not np.isfinite(row).all():
            raise ValueError(f"{file} line {number}: expected {expected}, found {line.strip()[:60]!r}")
        yield row


def _lookup(known: dict[int, list[float]], numbers: np.ndarray) -> np.ndarray:
    nothing = [np.nan] * 4
    return np.array([known.get(number, nothing) for number in numbers.tolist()], np.float32).reshape(-1, 4)


def _without_empty(boxes: np.ndarray) -> np.ndarray:
    """Write NaN over boxes without an area."""
    boxes[~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)] = np.nan
    return boxes
