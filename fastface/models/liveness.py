"""Any backbone -> a network that tells classes apart, from whole images or from native patches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastface.models.neck import Backbone, outside_autocast


class LivenessNetwork(Backbone):
    """A backbone and a classifier: [B, 3, H, W] -> logits [B, C]; in training, with `features`, also a feature map.

    The map [B, F, h, w] is the deepest of at least an 8th of the image's side, before anything is pooled.

    Args:
        classes: names of what the logits are of.
        scale: None for a linear layer with bias; else logits are scale * cosine to a weight vector of each class.
        features: return the map too, as (logits, map), while the module trains.

    Raises:
        ValueError: where a map is asked for and the backbone has none.
    """

    may_be_new = ("classifier.",)

    def __init__(
        self, body: Backbone, classes: Sequence[str], *, scale: float | None = None, features: bool = False
    ) -> None:
        super().__init__(body.name, body.embedding_size, body.input_size)
        self.any_size, self.notes = body.any_size, body.notes
        self.neck_modules = (*(f"body.{name}" for name in body.neck_modules), "classifier")
        self.body = body
        self.scale = scale
        self.classes = tuple(classes)
        self.classifier = nn.Linear(body.embedding_size, len(classes), bias=scale is None)
        self.map_at: str | None = None
        """The part of the body whose output is the feature map."""
        self.map_channels, self.map_size = 0, (0, 0)  # width, height
        if features:
            self._find_map()

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        embedding = self.body(images)
        with outside_autocast(embedding.device.type):
            logits = self._logits(embedding.to(self.classifier.weight.dtype))
        if self.map_at is None or not self.training:
            return logits
        part: Any = self.body.get_submodule(self.map_at)
        found, part.kept = part.kept, None
        return logits, found

    def adapted(self, tensors: dict[str, Tensor], classes: Sequence[str] | None) -> dict[str, Tensor]:
        """Take a backbone's tensors for the body's; leave out a classifier of other classes."""
        if not any(name.startswith("body.") for name in tensors):
            return {f"body.{name}": value for name, value in tensors.items()}
        own = {name for name in self.state_dict() if name.startswith("classifier.")}
        given = {name for name in tensors if name.startswith("classifier.")}
        fits = own == given and classes is not None and tuple(classes) == self.classes
        return {name: value for name, value in tensors.items() if fits or name not in given}

    def _logits(self, embedding: Tensor) -> Tensor:
        if self.scale is None:
            return self.classifier(embedding)
        return self.scale * F.linear(F.normalize(embedding), F.normalize(self.classifier.weight))

    def _find_map(self) -> None:
        """Run a black image through the body and choose the last part that gives a map of the wanted size."""
        width, height = self.input_size
        shapes: dict[str, tuple[int, ...]] = {}  # in the order in which parts end

        def note(name: str) -> Any:
            def hook(module: nn.Module, _: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.ndim == 4:
                    shapes.pop(name, None)
                    shapes[name] = tuple(output.shape[1:])

            return hook

        handles = [m.register_forward_hook(note(name)) for name, m in self.body.named_modules() if name]
        training = self.body.training
        self.body.eval()
        first = next(self.body.parameters())
        with torch.no_grad():
            self.body(torch.zeros(2, 3, height, width, device=first.device, dtype=first.dtype))
        self.body.train(training)
        for handle in handles:
            handle.remove()
        large = [name for name, (_, rows, columns) in shapes.items() if 8 * rows >= height and 8 * columns >= width]
        # The wide inside of a block that strides is not what the network passes on.
        inside = [n for n in shapes if n not in large and type(self.body.get_submodule(n)) is not nn.Sequential]
        wanted = [name for name in large if not any(name.startswith(f"{block}.") for block in inside)]
        if not wanted or getattr(self.body, "layout", "nchw") != "nchw":  # tokens, or channels that come last
            raise ValueError(
                f"task.fourier_weight: {self.name} has no feature map of an 8th of {width}x{height} px to predict a "
                "spectrum from: take a convolutional network, or fourier_weight 0"
            )
        self.map_at = wanted[-1]
        self.map_channels, rows, columns = shapes[self.map_at]
        self.map_size = (columns, rows)
        self.body.get_submodule(self.map_at).register_forward_hook(_keep)


def _keep(module: Any, _: Any, output: Tensor) -> None:
    """Keep a part's output for the end of the forward pass; not a closure, so that copies of a network keep theirs."""
    if module.training:
        module.kept = output


class DeployedLiveness(nn.Module):
    """What ships: normalised images [B, 3, H, W] -> logits [B, C], of a window, or averaged over a grid of patches."""

    def __init__(
        self,
        backbone: LivenessNetwork,
        window: tuple[int, int, int, int] | None = None,
        patch_px: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.window, self.patch_px = window, patch_px

    def forward(self, images: Tensor) -> Tensor:
        if self.window is not None:
            x0, y0, x1, y1 = self.window
            images = images[:, :, y0:y1, x0:x1]
        if self.patch_px is None:
            return self.backbone(images)
        patches = grid_patches(images, self.patch_px)
        logits = self.backbone(patches.flatten(0, 1))  # [G * B, C]
        return logits.view(len(patches), -1, logits.shape[1]).mean(0)


def grid_places(side: int, patch: int) -> list[int]:
    """Return where patches start along a side, evenly, as few as cover it, all whole px."""
    count = -(-side // patch)
    return np.linspace(0, side - patch, count).round().astype(int).tolist()


def grid_patches(images: Tensor, patch: int) -> Tensor:
    """Cut a fixed grid of patches that covers each image [B, 3, H, W] -> [G, B, 3, patch, patch]."""
    rows, columns = grid_places(images.shape[2], patch), grid_places(images.shape[3], patch)
    return torch.stack([images[:, :, y : y + patch, x : x + patch] for y in rows for x in columns])


def cut_patches(images: Tensor, keys: np.ndarray, patch: int) -> Tensor:
    """Cut one patch out of each image [B, 3, H, W] -> [B, 3, patch, patch], where its key (uint64 [B]) says."""
    down, across = images.shape[2] - patch + 1, images.shape[3] - patch + 1
    top = (keys % np.uint64(down)).astype(np.int64)
    left = ((keys >> np.uint64(32)) % np.uint64(across)).astype(np.int64)
    side = np.arange(patch)
    rows = torch.from_numpy(top[:, None] + side).to(images.device)[:, :, None]  # [B, patch, 1]
    columns = torch.from_numpy(left[:, None] + side).to(images.device)[:, None, :]
    which = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[which, rows, columns].permute(0, 3, 1, 2)
