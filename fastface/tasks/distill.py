"""A trained network's embeddings -> a second loss for a network that learns to place faces where that one does.

The loss is the mean over images of 1 - cos(student, teacher), added with a weight to the task's own: the form in which
public face trainers distil, on unit embeddings. No image is compared with another one, so it is the same on any number
of processes.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastface.data.normalisation import PerColour, factor, three
from fastface.data.plan import hash_numbers

PROJECTION = 104
"""What a run's seed is hashed with for the projection's first weights, apart from the other streams."""


class Teacher:
    """A trained network that learns no more, and takes the student's images as they are.

    No module, and so never among a student's parameters, in its checkpoints, or in its training mode.

    Args:
        network: [B, 3, H, W] normalised by its own mean and std -> [B, embedding_size].
        size: width and height in px of what it takes; other images are resized, bilinear with antialiasing.
        mean, std: its network sees (pixel - mean) / std.
        student_mean, student_std: and the images it is given here are (pixel - student_mean) / student_std.
        sha256: of its weights, by which a resumed run knows it again.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        size: tuple[int, int],
        mean: PerColour,
        std: PerColour,
        student_mean: PerColour,
        student_std: PerColour,
        embedding_size: int,
        sha256: str = "",
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.size, self.embedding_size, self.sha256 = size, embedding_size, sha256
        colours = list(zip(three(mean), three(std), three(student_mean), three(student_std), strict=True))
        self.scale = tuple(own_std / std for _, std, _, own_std in colours)
        self.shift = tuple((own_mean - mean) / std for mean, std, own_mean, _ in colours)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the embeddings [B, embedding_size] of the student's images [B, 3, H, W], in the images' type.

        The mirrored image is not added, whatever its card says: the student is to see what the teacher saw.
        """
        width, height = self.size
        if images.shape[2:] != (height, width):
            images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=True)
        if {*self.scale} != {1.0} or {*self.shift} != {0.0}:  # resizing first is the same: its weights sum to one
            images = images * factor(self.scale, images.device, images.dtype)
            images = images + factor(self.shift, images.device, images.dtype)
        return self.network(images).to(images.dtype)


class Distillation(nn.Module):
    """Compare a student's embeddings with its teacher's.

    Where their sizes differ, a linear map of the student's, which learns with it and does not ship, comes in between.

    Args:
        weight: of (1 - cosine) in the loss.
        embedding_size: of the student.
    """

    def __init__(self, teacher: Teacher, *, weight: float, embedding_size: int, seed: int) -> None:
        super().__init__()
        self.teacher, self.weight = teacher, weight
        self.projection: nn.Parameter | None = None  # [teacher's size, student's]
        if embedding_size != teacher.embedding_size:
            generator = torch.Generator().manual_seed(hash_numbers(seed, 0, PROJECTION) >> 1)
            start = torch.empty(teacher.embedding_size, embedding_size)
            self.projection = nn.Parameter(start.normal_(0.0, embedding_size**-0.5, generator=generator))

    def forward(self, embedding: Tensor, target: Tensor) -> Tensor:
        """Return the mean cosine of embeddings [B, D] to the teacher's [B, T]; a scalar of the teacher's type."""
        with torch.autocast(embedding.device.type, enabled=False):
            student = embedding.to(target.dtype)
            if self.projection is not None:
                student = student @ self.projection.T
            return (F.normalize(student) * F.normalize(target)).sum(1).mean()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Take the teacher along to another device or type, though it is none of the module's own."""
        self.teacher.network._apply(fn)
        return super()._apply(fn, recurse)
