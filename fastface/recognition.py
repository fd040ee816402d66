"""RUNs or FILEs -> one embedding of a face: by one recognition model, or by several and a network that fuses them."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastface.card import Calibration, Threshold
from fastface.decision import Step, ms_since
from fastface.embedding import open_model, weights_digest
from fastface.face_cut import Cut, FaceFinder, cut_for
from fastface.predictor import Embedder


class Model(NamedTuple):
    """A recognition model, loaded."""

    name: str
    embedder: Embedder
    sha256: str
    cut: Cut


class Recognition:
    """What turns the pictures of a face into its embedding.

    Args:
        models: run or step folders, or .onnx files.
        fusion: a run or file of task fusion, for embeddings of several models side by side.
        align: how faces are cut for models whose cards do not say.
    """

    def __init__(
        self,
        models: Sequence[str | Path],
        *,
        fusion: str | Path | None = None,
        finder: FaceFinder | None = None,
        align: str | None = None,
        device: str = "cpu",
    ) -> None:
        if not models:
            raise ValueError("no recognition model is given")
        self.models: list[Model] = []
        for name in models:
            embedder, digest = open_model(Path(name), device)
            self.models.append(Model(str(name), embedder, digest, cut_for(embedder.card, str(name), finder, align)))
        if align is not None and all(model.embedder.card.crop is not None for model in self.models):
            raise ValueError(f"--align {align} has no meaning: the models' cards say how faces are cut; leave it out")
        widths = tuple(_width(model.embedder) for model in self.models)
        self.fuser = None if fusion is None else _load_fusion(fusion, widths, device)
        self.fusion_sha256 = None if fusion is None else weights_digest(Path(fusion))

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """How each model wants its pictures."""
        return tuple(model.cut for model in self.models)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of the embeddings that stand side by side; of one where they are fused."""
        return (
            tuple(_width(model.embedder) for model in self.models)
            if self.fuser is None
            else (self.fuser.card.embedding_size,)
        )

    @property
    def origin(self) -> str:
        """Where the embedding comes from, in words."""
        return " and ".join(model.embedder.origin for model in self.models) if self.fuser is None else self.fuser.origin

    @property
    def one_space(self) -> bool:
        """Whether the embedding can be compared by its cosine: it is one model's, or fused."""
        return len(self.models) == 1 or self.fuser is not None

    @property
    def thresholds(self) -> list[Threshold]:
        """Of the cosine; none where several models are not fused."""
        decides = self.fuser.card if self.fuser is not None else self.models[0].embedder.card
        return list(decides.thresholds) if self.one_space else []

    @property
    def calibration(self) -> Calibration | None:
        """Of the cosine."""
        decides = self.fuser.card if self.fuser is not None else self.models[0].embedder.card
        return getattr(decides, "calibration", None) if self.one_space else None

    def rows(self, pictures: Sequence[np.ndarray], subject: str = "") -> tuple[np.ndarray, list[Step]]:
        """Embed pictures, uint8 [B, H, W, 3] for each model -> float32 [B, D], not of unit length, and the steps.

        Several models' embeddings stand side by side, or are fused.
        """
        steps, parts = [], []
        for model, own in zip(self.models, pictures, strict=True):
            began = time.perf_counter()
            parts.append(np.asarray(model.embedder(own), np.float32))
            frames = f" of {len(own)} frames" if len(own) > 1 else ""
            said = f"{parts[-1].shape[1]} values{frames} ({Path(model.name).name})"
            steps.append(Step("embed", subject, ms_since(began), said, model=model.name))
        rows = np.concatenate(parts, axis=1)
        if self.fuser is not None:
            began = time.perf_counter()
            fused = np.asarray(self.fuser.fuse(rows), np.float32)
            said = f"{rows.shape[1]} values -> {fused.shape[1]}"
            steps.append(Step("fuse", subject, ms_since(began), said, model=self.fuser.origin))
            rows = fused
        return rows, steps

    def embed(self, pictures: Sequence[np.ndarray], subject: str = "") -> tuple[np.ndarray, list[Step]]:
        """Embed one subject as `rows`, float32 [D]: the frames of a clip count by the mean of their embeddings."""
        rows, steps = self.rows(pictures, subject)
        return rows.mean(axis=0, dtype=np.float64).astype(np.float32), steps

    def identity(self) -> dict[str, Any]:
        """Say what the bits of an embedding depend on, as plain values: the models, not where their files lie."""
        keys = ("input_size", "mean", "std", "flip")
        models = []
        for model in self.models:
            about = {key: getattr(model.embedder.card, key) for key in keys}
            about = {key: list(value) if isinstance(value, tuple) else value for key, value in about.items()}
            models.append({"sha256": model.sha256, **about, "crop": model.cut.crop, "margin": model.cut.margin})
        return {"models": models, "fusion": self.fusion_sha256}


def _width(embedder: Embedder) -> int:
    return embedder.card.embedding_size * (2 if embedder.card.flip == "concat" else 1)


def _load_fusion(fusion: str | Path, widths: tuple[int, ...], device: str) -> Any:
    fuser = importlib.import_module("fastface.fuser").load_fusion(fusion, device=device)
    if tuple(fuser.card.embedding_sizes) != widths:
        raise ValueError(
            f"{fusion} fuses embeddings of {' + '.join(map(str, fuser.card.embedding_sizes))} values, the recognition "
            f"models make {' + '.join(map(str, widths))}: give those that it was trained on, in their order"
        )
    return fuser
