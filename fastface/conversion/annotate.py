"""Boxes and landmarks of a source -> columns of the index, in px of the images that the shards hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fastface.data.geometry import BOX_REASONS, NUM_LANDMARKS, move_points, place_boxes
from fastface.data.images import Prepared
from fastface.data.sources import Source

NOTED = {  # what the note of a shard says of its n images and the m boxes in them
    "box_count": "<i8",  # [n]
    "box_row": "<i8",  # [m], row in the source's faces
    "boxes": "<f4",  # [m, 4]
    "landmarks": "<f4",  # [n, 10] x0 y0 x1 y1 ...
}


class Annotations:
    """What the images of one shard carry, gathered image by image."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._found: dict[str, list] = {name: [] for name in NOTED}
        self.lost: list[list[str]] = []  # rows of source name, reason, detail
        self.counts: Counter[str] = Counter()  # boxes and landmarks by what became of them

    def add(self, record: int, image: Prepared) -> None:
        """Place what the source says of a record into the image that is stored of it."""
        source, found = self._source, self._found
        if source.faces is not None or source.boxes is not None:
            rows, boxes = _boxes_of(source, record)
            placed = place_boxes(boxes, image.matrix, image.width, image.height)
            found["box_count"].append(len(placed.boxes))
            found["box_row"].extend(rows[placed.kept].tolist())
            found["boxes"].extend(placed.boxes.tolist())
            left_out = zip(np.flatnonzero(~placed.kept).tolist(), placed.reasons, strict=True)
            for k, reason in left_out:
                corners = " ".join(f"{value:g}" for value in boxes[k])
                detail = f"box {k + 1} of {len(boxes)}, {corners}: {BOX_REASONS[reason]}; the image is kept"
                self.lost.append([source.name(record), reason, detail])
            self.counts += Counter(["boxes"] * len(placed.boxes) + placed.reasons)
            self.counts["box-clipped"] += placed.clipped
        if source.landmarks is not None:
            points = move_points(source.landmarks[record], image.matrix)
            found["landmarks"].append(points.reshape(-1).tolist())
            edges = np.array([image.width, image.height])
            outside = ((points < 0) | (points > edges)).any()
            what = "landmarks-missing" if np.isnan(points).any() else "landmarks-outside" if outside else "landmarks"
            self.counts[what] += 1

    def columns(self) -> dict[str, np.ndarray]:
        """Return what was gathered, as in NOTED."""
        shapes = {"boxes": (-1, 4), "landmarks": (-1, 2 * NUM_LANDMARKS)}
        return {
            name: np.array(self._found[name], kind).reshape(shapes.get(name, (-1,))) for name, kind in NOTED.items()
        }


def _boxes_of(source: Source, record: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the boxes (float32 [k, 4]) of a record."""
    if source.faces is None:
        assert source.boxes is not None
        return np.array([record]), source.boxes[record : record + 1]
    first, last = source.faces.start[record : record + 2].tolist()
    return np.arange(first, last), source.faces.boxes[first:last]


def face_columns(source: Source, noted: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Put the notes of all shards together: `boxes`, `boxes_start`, `boxes_*` and `landmarks`, where there are any."""
    columns = {}
    if source.faces is not None or source.boxes is not None:
        counts, rows, boxes = (np.concatenate([n[k] for n in noted]) for k in ("box_count", "box_row", "boxes"))
        columns["boxes"] = boxes
        columns["boxes_start"] = np.concatenate([[0], np.cumsum(counts)]).astype("<i8")
        attributes = {} if source.faces is None else source.faces.attributes
        columns |= {f"boxes_{name}": values[rows] for name, values in attributes.items()}
    if source.landmarks is not None:
        columns["landmarks"] = np.concatenate([n["landmarks"] for n in noted])
    return columns
