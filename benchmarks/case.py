"""A row of the loaders' table: how its batches come about, and what it needs for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

Batches = Iterator[tuple[Any, Tensor]]  # images as Case.delivers says, labels int64 [B]
Build = Callable[[Path, int, int], Batches]  # (prepared folder, threads or workers, images per batch)


class Case(NamedTuple):
    """One loader in one way of using it. `build` imports what it needs; its generator then starts the loader."""

    build: Build
    environment: dict[str, str] = {}  # noqa: RUF012 - of the process it runs in; never written to
    delivers: Literal["float32", "uint8", "nothing"] = "float32"
    # float32: contiguous [B, 3, H, W] in [-1, 1]; uint8: [B, 3, H, W] in 0 to 255, contiguous or channels last
    needs: tuple[str, ...] = ()  # modules that the project itself does not require
    reads: tuple[str, ...] = ()  # beside the shards: "images", "idx" or keys of layouts.LAYOUTS
    augments: bool = False  # images are no longer those that were prepared, and are not compared with them
    epochs_before: int = 0  # taken before the clock starts, where a loader fills a cache in its first
