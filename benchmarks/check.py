"""A batch -> nothing, or an error that says in what it is not the work agreed: fast but wrong must not pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from benchmarks.case import Case
from fastface.data.index import Index
from fastface.data.shards import ShardReader

SIDE = 8  # images are compared by their means over 8 x 8 fields
# In levels of 256. On 112 x 112 crops of LFW, libjpeg-turbo's bindings differ by 0.0, FFmpeg by up to 0.7 and FFCV's
# JPEGs of JPEGs by up to 1.0, while of 1,500 images 99 % lie 12 or more from any other image (2026-11).
TOLERANCE = 2.0


def write_signatures(work: Path) -> None:
    """Write work/signatures.npy, float32 [N, 3, 8, 8]: what every image of work/shards looks like, coarsely."""
    import simplejpeg

    torch.set_num_threads(1)  # several only wait for each other at so little work
    reader = ShardReader(index := Index.open(work / "shards"))
    signatures = np.empty((len(index), 3, SIDE, SIDE), np.float32)
    for record in range(len(index)):
        image = torch.from_numpy(simplejpeg.decode_jpeg(reader.view(record)))
        signatures[record] = signature(image.permute(2, 0, 1)[None])[0]
    np.save(work / "signatures.npy", signatures)


def signature(images: Tensor) -> Tensor:
    """Return the mean colour of 8 x 8 fields of images [B, 3, H, W]: float32 [B, 3, 8, 8]; mirrors as the images do."""
    return adaptive_avg_pool2d(images.float(), SIDE)


class Checker:
    """Compare batches with the images that were prepared in a folder."""

    def __init__(self, work: Path, case: Case, batch: int) -> None:
        self.case, self.batch = case, batch
        self.index = Index.open(work / "shards")
        self.signatures = torch.from_numpy(np.load(work / "signatures.npy"))
        self.before: Tensor | None = None  # labels of the batch checked before

    def __call__(self, item: Any) -> None:
        """Check types, shape, range, order and, image by image, that it is one of those with its label."""
        images, labels = item
        assert labels.dtype == torch.int64, f"labels are {labels.dtype}"
        assert labels.shape == (self.batch,), f"labels have shape {list(labels.shape)}"
        assert not np.array_equal(labels, self.index.label[: self.batch]), "the order is that of the files"
        assert self.before is None or not torch.equal(labels, self.before), "the same batch came again"
        self.before = labels.clone()
        if self.case.delivers != "nothing":
            images = levels(images, self.case.delivers)
            if not self.case.augments:
                self.check_images(images, labels)

    def check_images(self, images: Tensor, labels: Tensor) -> None:
        """Find each of images (0 to 255) among those of its label, as it is or mirrored."""
        assert self.index.image_size
        width, height = self.index.image_size
        assert images.shape == (self.batch, 3, height, width), f"images have shape {list(images.shape)}"
        found = signature(images)
        mirrored = 0
        for label, image in zip(labels.tolist(), found, strict=True):
            start, stop = self.index.label_start[label : label + 2]
            same = self.signatures[torch.from_numpy(self.index.by_label[start:stop].astype(np.int64))]
            upright = float((same - image).abs().mean((1, 2, 3)).min())
            flipped = float((same - image.flip(-1)).abs().mean((1, 2, 3)).min())
            nearest = min(upright, flipped)
            assert nearest < TOLERANCE, f"an image with label {label} is {nearest:.1f} levels from all of that label"
            mirrored += flipped < upright
        share = mirrored / self.batch
        assert 0.2 < share < 0.8, f"{share:.0%} of the images are mirrored"  # 7 standard deviations of 128 coins


def levels(images: Tensor, delivers: str) -> Tensor:
    """Check the type and range of images; return them as float32, 0 to 255."""
    if delivers == "uint8":
        assert images.dtype == torch.uint8, f"images are {images.dtype}"
        assert any(images.is_contiguous(memory_format=f) for f in (torch.contiguous_format, torch.channels_last))
        return images.float()
    assert images.dtype == torch.float32, f"images are {images.dtype}"
    assert images.is_contiguous(), f"images have strides {images.stride()}"
    low, high = float(images.min()), float(images.max())
    assert -1.0001 <= low < -0.5 < 0.5 < high <= 1.0001, f"values run from {low} to {high}"
    return images * 127.5 + 127.5
