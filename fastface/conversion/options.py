"""What to convert and how -> one checked value, and the part of it that decides the bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastface.conversion.faces import Alignment
from fastface.data.images import ImageSpec


@dataclass(frozen=True)
class Options:
    """What to convert and how; the command line of tools/make_shards.py explains each."""

    kind: str
    input: Path
    out: Path
    spec: ImageSpec = field(default_factory=ImageSpec)
    boxes: bool = False  # crop to the boxes of the source
    align: Alignment | None = None  # find faces and cut them out
    root: Path | None = None  # kind list: where its paths start
    annotations: Path | None = None  # kind widerface: the official list of boxes
    fps: float | None = None  # kinds video and liveness: frames a second
    layout: str | None = None  # kind liveness: whose files they are, None = found by tell-tale files
    protocol: str | None = None  # kind liveness: of OULU-NPU
    include: Path | None = None
    exclude: Path | None = None
    min_images: int = 1  # an identity with fewer is left out
    split: Mapping[str, float] | None = None
    split_by: str = "identity"  # or subject, source, clip, image
    leakage: str = "refuse"  # or "allow": of live and spoof images, persons or copies in two of the sets
    seed: int = 0
    shuffle: bool = True
    shard_size: int | None = None  # images per shard, None = by the size of the dataset
    workers: int | None = None  # None = every core
    part: tuple[int, int] | None = None  # (K, N): make every N-th shard only
    join: bool = False  # make no shard; put together what the parts made
    max_rejects: float = 1.0  # the largest fraction of rejected images that is still published

    def __post_init__(self) -> None:
        if self.part is not None and not 0 <= self.part[0] < self.part[1]:
            raise ValueError(f"--part {self.part[0]}/{self.part[1]}: K runs from 0 to N - 1, as in 0/4, 1/4, 2/4, 3/4")
        if self.part is not None and self.join:
            raise ValueError("--part and --join exclude each other: run all parts first, then --join alone")
        for name, value in (
            ("--shard-size", self.shard_size),
            ("--workers", self.workers),
            ("--min-images", self.min_images),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} must be at least 1")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"--fps {self.fps:g} must be above 0 and at most 1000 frames a second")
        if self.align is not None and self.spec.size is None and self.align.context is None:
            raise ValueError(f"--align {self.align.method} needs a target: add --size 112")
        if self.align is not None and self.align.context is not None and self.align.context.stretched:
            if self.spec.size is None:
                raise ValueError("--stretch needs a target: add --size 80")
        if self.align is not None and (self.boxes or self.spec.crop is not None):
            raise ValueError("--align and --crop exclude each other: --align crop cuts a box out, --margin enlarges it")
        if not 0 <= self.max_rejects <= 1:
            raise ValueError(f"--max-rejects {self.max_rejects} must be a fraction of the images, 0 to 1")

    def settings(self) -> dict[str, Any]:
        """Return what the kind of input is told, None where nothing was said."""
        return {
            "root": self.root,
            "annotations": self.annotations,
            "fps": self.fps,
            "layout": self.layout,
            "protocol": self.protocol,
        }

    def essence(self) -> dict[str, Any]:
        """Return what decides the bytes of the output, as plain values."""
        return {
            "kind": self.kind,
            "input": self.input.resolve().name,
            "size": None if self.spec.size is None else list(self.spec.size),
            "crop": self._crop(),
            "align": None if self.align is None else self.align.essence(),
            "quality": self.spec.quality,
            "lossless": self.spec.lossless,
            "annotations": _digest(self.annotations),
            "fps": self.fps,
            "layout": self.layout,
            "protocol": self.protocol,
            "include": _digest(self.include),
            "exclude": _digest(self.exclude),
            "min_images": self.min_images,
            "split": None if self.split is None else dict(self.split),
            "split_by": None if self.split is None else self.split_by,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "shard_size": self.shard_size,
        }

    def _crop(self) -> float | str | None:
        """Say what images show: a model that was trained on faces cut in one way must not get others."""
        if self.align is not None:
            return self.align.crop
        return "box" if self.boxes and self.spec.crop is None else self.spec.crop


def _digest(path: Path | None) -> str | None:
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
