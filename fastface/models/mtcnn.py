"""Images -> faces with MTCNN (Zhang et al. 2016, doi 10.1109/LSP.2016.2603342): three networks, each looking closer.

P-Net slides over an image pyramid and proposes boxes, R-Net looks at each at 24 px and O-Net at 48 px; each
drops what is no face and moves the rest. The arithmetic of boxes is that of the published MATLAB code, whose
last pixel is inside, because the public weights were trained with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastface.data.align import shrunk
from fastface.detection.area import AreaTable
from fastface.detection.boxes import squared, suppress
from fastface.detection.found import Found
from fastface.models.weights import read_foreign

CELL, STRIDE = 12, 2  # px of the pyramid that one output of P-Net sees, and between two of them
FACTOR = 0.709  # of the pyramid, about sqrt(1/2): each level has half the area
THRESHOLDS = (0.6, 0.7, 0.7)  # smallest score that P-Net, R-Net, O-Net let pass
MIN_FACE_PX = 20
LONGEST_PX = 1280  # longer images are shrunk to it: a face of 20 px is then 1.6 % of the side
CHUNK = 512  # crops in one pass of R-Net or O-Net; 48 x 48 floats and 64 channels make 300 MB of them


class Heads(NamedTuple):
    """What a network says of each crop (or, P-Net, of each place: [B, C, h, w])."""

    face: Tensor  # [B, 2] logits: no face, face
    box: Tensor  # [B, 4] how far each edge lies off, in sides of the box
    landmarks: Tensor | None  # [B, 10] five x then five y, in sides of the box; P-Net and R-Net have none


def _trunk(*channels: int, kernels: Sequence[int], pools: Sequence[int]) -> nn.Sequential:
    """Build conv, prelu (and pool, stride 2, where `pools` has a kernel above 0) under their public names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for k, (before, after, kernel, pool) in enumerate(
        zip(channels[:-1], channels[1:], kernels, pools, strict=True), start=1
    ):
        layers[f"conv{k}"] = nn.Conv2d(before, after, kernel)
        layers[f"prelu{k}"] = nn.PReLU(after)
        if pool:
            layers[f"pool{k}"] = nn.MaxPool2d(pool, 2, ceil_mode=True)
    return nn.Sequential(layers)


class Stage(nn.Module):
    """What the three networks have in common: the parts of public weights that have another name here."""

    public: ClassVar[dict[str, str]]


class PNet(Stage):
    """Proposes: slides over images [B, 3, H, W], H and W >= 12."""

    public: ClassVar = {"conv4_1": "face", "conv4_2": "box"}

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _trunk(3, 10, 16, 32, kernels=(3, 3, 3), pools=(2, 0, 0))
        self.face = nn.Conv2d(32, 2, 1)
        self.box = nn.Conv2d(32, 4, 1)

    def forward(self, images: Tensor) -> Heads:
        features = self.trunk(images)
        return Heads(self.face(features), self.box(features), None)


class RNet(Stage):
    """Refines: crops [B, 3, 24, 24]."""

    public: ClassVar = {"dense4": "dense", "prelu4": "prelu", "dense5_1": "face", "dense5_2": "box"}
    side = 24

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _trunk(3, 28, 48, 64, kernels=(3, 3, 2), pools=(3, 3, 0))
        self.dense, self.prelu = nn.Linear(576, 128), nn.PReLU(128)
        self.face, self.box = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, crops: Tensor) -> Heads:
        features = self.prelu(self.dense(_flat(self.trunk(crops))))
        return Heads(self.face(features), self.box(features), None)


class ONet(Stage):
    """Outputs: crops [B, 3, 48, 48]."""

    public: ClassVar = {
        "dense5": "dense",
        "prelu5": "prelu",
        "dense6_1": "face",
        "dense6_2": "box",
        "dense6_3": "landmarks",
    }
    side = 48

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _trunk(3, 32, 64, 64, 128, kernels=(3, 3, 3, 2), pools=(3, 3, 2, 0))
        self.dense, self.prelu = nn.Linear(1152, 256), nn.PReLU(256)
        self.face, self.box, self.landmarks = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, crops: Tensor) -> Heads:
        features = self.prelu(self.dense(_flat(self.trunk(crops))))
        return Heads(self.face(features), self.box(features), self.landmarks(features))


def _flat(features: Tensor) -> Tensor:
    """Flatten [B, C, H, W] as the public dense weights want it: columns before rows before channels (MATLAB)."""
    return features.permute(0, 3, 2, 1).flatten(1)


def load_stage(net: Stage, file: Path) -> Stage:
    """Load weights under public names or ours, strictly; ValueError names what does not fit."""
    state = {}
    for name, value in read_foreign(file).items():
        part, _, kind = name.rpartition(".")
        renamed = f"{net.public.get(part, part)}.{kind}"
        state[f"trunk.{name}" if f"trunk.{name}" in net.state_dict() else renamed] = value
    try:
        net.load_state_dict(state, strict=True)
    except RuntimeError as error:
        what = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} does not hold the weights of MTCNN's {type(net).__name__}: {what}") from None
    return net.eval().requires_grad_(False)


class Mtcnn:
    """The cascade; images of one size go through P-Net together, crops of all images through R-Net and O-Net."""

    def __init__(
        self,
        pnet: nn.Module,
        rnet: nn.Module,
        onet: nn.Module,
        *,
        min_face_px: float = MIN_FACE_PX,
        thresholds: tuple[float, float, float] = THRESHOLDS,
        longest_px: int | None = LONGEST_PX,
    ) -> None:
        self.pnet, self.rnet, self.onet = pnet, rnet, onet
        self.min_face_px, self.thresholds, self.longest_px = min_face_px, thresholds, longest_px

    @classmethod
    def open(cls, files: Sequence[Path], **settings: float) -> Mtcnn:
        """Load from the files of P-Net, R-Net and O-Net."""
        nets = [load_stage(net, file) for net, file in zip((PNet(), RNet(), ONet()), files, strict=True)]
        return cls(*nets, **settings)  # type: ignore[arg-type]

    @torch.inference_mode()
    def detect(self, images: Sequence[np.ndarray]) -> list[Found]:
        """Find faces in uint8 RGB images [H, W, 3] of any sizes."""
        if not images:
            return []
        small = [shrunk(image, self.longest_px) for image in images]
        tables = [AreaTable(image) for image, _ in small]
        proposed = self.propose(tables)
        refined = self.refine(tables, proposed)
        found = self.output(tables, refined)
        return [faces.moved(back) for faces, (_, back) in zip(found, small, strict=True)]

    def propose(self, tables: Sequence[AreaTable]) -> list[np.ndarray]:
        """Run P-Net over the pyramid of each image; return square boxes, float32 [n, 4] an image."""
        found: list[list[np.ndarray]] = [[] for _ in tables]
        for (height, width), numbers in _by_size(tables).items():
            scale = CELL / self.min_face_px
            while min(height, width) * scale >= CELL:
                level = (int(height * scale + 1), int(width * scale + 1))
                pixels = np.concatenate([tables[i].means(np.array([[0, 0, width, height]]), level) for i in numbers])
                heads = self.pnet(_channels_last(pixels))
                faces, offsets = heads.face.softmax(1)[:, 1].numpy(), heads.box.permute(0, 2, 3, 1).numpy()
                for i, face, offset in zip(numbers, faces, offsets, strict=True):
                    found[i].append(_cells(face, offset, np.float32(scale), self.thresholds[0]))
                scale *= FACTOR
        return [_moved_and_squared(np.concatenate([NO_CELLS, *rows])) for rows in found]

    def refine(self, tables: Sequence[AreaTable], boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run R-Net on the proposals; return square boxes, float32 [n, 4] an image."""
        refined = []
        for seen in self._look(self.rnet, tables, boxes, RNet.side, self.thresholds[1]):
            keep = suppress(seen.boxes, seen.scores, 0.7)
            refined.append(squared(_moved(seen.boxes[keep], seen.offsets[keep])))
        return refined

    def output(self, tables: Sequence[AreaTable], boxes: Sequence[np.ndarray]) -> list[Found]:
        """Run O-Net on what R-Net left; return the faces of each image."""
        faces = []
        for seen in self._look(self.onet, tables, boxes, ONet.side, self.thresholds[2]):
            sides = seen.boxes[:, 2:] - seen.boxes[:, :2] + 1
            points = seen.landmarks * sides[:, None] + seen.boxes[:, None, :2] - 1
            moved = _moved(seen.boxes, seen.offsets)
            keep = suppress(moved, seen.scores, 0.7, over="least", inclusive=True)
            faces.append(Found.of(moved[keep], seen.scores[keep], points[keep]))
        return faces

    def _look(
        self,
        net: nn.Module,
        tables: Sequence[AreaTable],
        boxes: Sequence[np.ndarray],
        side: int,
        threshold: float,
    ) -> list[Seen]:
        """Look at every box of every image at `side` px; return what passes the threshold, image by image."""
        inside = [_inside(each, table) for each, table in zip(boxes, tables, strict=True)]
        kept = [each[good] for each, (_, good) in zip(boxes, inside, strict=True)]
        crops = [table.means(cells[good], (side, side)) for table, (cells, good) in zip(tables, inside, strict=True)]
        pixels = np.concatenate([np.empty((0, side, side, 3), np.float32), *crops])
        parts = [net(chunk) for chunk in _channels_last(pixels).split(CHUNK)]
        face = torch.cat([part.face for part in parts]).softmax(1)[:, 1].numpy()
        offsets = torch.cat([part.box for part in parts]).numpy()
        points = np.zeros((len(face), 10), np.float32)
        if parts[0].landmarks is not None:
            points = torch.cat([part.landmarks for part in parts]).numpy()
        points = points.reshape(-1, 2, 5).transpose(0, 2, 1)
        ends = np.cumsum([len(each) for each in kept])[:-1]
        columns = (np.split(each, ends) for each in (face, offsets, points))
        return [
            Seen(*(column[score > threshold] for column in (where, score, offset, point)))
            for where, score, offset, point in zip(kept, *columns, strict=True)
        ]


class Seen(NamedTuple):
    """What R-Net or O-Net says of the boxes of one image."""

    boxes: np.ndarray  # float32 [n, 4], not moved yet
    scores: np.ndarray  # float32 [n]
    offsets: np.ndarray  # float32 [n, 4], in sides of the box
    landmarks: np.ndarray  # float32 [n, 5, 2], in sides of the box; zeros from R-Net


def _channels_last(pixels: np.ndarray) -> Tensor:
    """Turn [B, H, W, 3] into [B, 3, H, W] as it lies in memory: there pooling is four times as fast on a CPU."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _by_size(tables: Sequence[AreaTable]) -> dict[tuple[int, int], list[int]]:
    sizes: dict[tuple[int, int], list[int]] = {}
    for i, table in enumerate(tables):
        sizes.setdefault((table.height, table.width), []).append(i)
    return sizes


NO_CELLS = np.empty((0, 9), np.float32)


def _cells(face: np.ndarray, offset: np.ndarray, scale: np.float32, threshold: float) -> np.ndarray:
    """Turn P-Net's places with a face into rows of box, score, offset (float32 [n, 9]), the best of each spot."""
    row, column = np.nonzero(face >= threshold)
    corner = np.stack([column, row], axis=1).astype(np.float32) * STRIDE
    boxes = np.concatenate([np.floor((corner + 1) / scale), np.floor((corner + CELL) / scale)], axis=1)
    score = face[row, column]
    keep = suppress(boxes, score, 0.5)
    return np.concatenate([boxes, score[:, None], offset[row, column]], axis=1)[keep]


def _moved_and_squared(cells: np.ndarray) -> np.ndarray:
    cells = cells[suppress(cells[:, :4], cells[:, 4], 0.7)]
    return squared(_moved(cells[:, :4], cells[:, 5:], last=0))


def _moved(boxes: np.ndarray, offsets: np.ndarray, last: int = 1) -> np.ndarray:
    """Move each edge by its offset times the side; `last` = 1 counts the last pixel into the side."""
    sides = boxes[:, 2:] - boxes[:, :2] + np.float32(last)
    return boxes + offsets * np.tile(sides, 2)


def _inside(boxes: np.ndarray, table: AreaTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of boxes that lie in the image (int [n, 4] edges) and whether there are any (bool [n])."""
    whole = boxes.astype(np.int64)  # towards zero; corners count from 1, as in the published code
    first = np.maximum(whole[:, :2], 1) - 1
    last = np.minimum(whole[:, 2:], [table.width, table.height])
    return np.concatenate([first, last], axis=1), np.all(last > first, axis=1)
