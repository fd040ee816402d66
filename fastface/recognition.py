"""RUNs or FILEs -> one embedding of a face: by one recognition model, or by several and a network that fuses them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastface.card import Calibration, Threshold
from fastface.decision import Step
from fastface.embedding import open_model
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

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """How each model wants its pictures."""
        return tuple(model.cut for model in self.models)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of the embeddings that stand side by side; of one where they are fused."""
        return tuple(_width(model.embedder) for model in self.models) if self.fuser is None else (self.fuser.size,)

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

    def embed(self, pictures: Sequence[np.ndarray], subject: str = "") -> tuple[np.ndarray, list[Step]]:
        """Embed one subject: uint8 [F, H, W, 3] for each model -> float32 [D], not of unit length, and the steps.

        Frames of a clip count by the mean of their embeddings. Several models' embeddings stand side by side, or are
        fused.
        """
        steps, rows = [], []
        for model, own in zip(self.models, pictures, strict=True):
            began = time.perf_counter()
            rows.append(np.asarray(model.embedder(own), np.float64).mean(axis=0))
            frames = f", mean of {len(own)} frames" if len(own) > 1 else ""
            said = f"{len(rows[-1])} values{frames} ({Path(model.name).name})"
            steps.append(Step("embed", subject, _ms(began), said, model=model.name))
        row = np.concatenate(rows).astype(np.float32)
        if self.fuser is not None:
            began = time.perf_counter()
            fused = self.fuser.fuse(row[None])[0]
            steps.append(Step("fuse", subject, _ms(began), f"{len(row)} values -> {len(fused)}"))
            row = fused
        return row, steps

    def identity(self) -> dict[str, Any]:
        """Say what the bits of an embedding depend on, as plain values: the models, not where their files lie."""
        keys = ("input_size", "mean", "std", "flip")
        models = []
        for model in self.models:
            about = {key: getattr(model.embedder.card, key) for key in keys}
            about = {key: list(value) if isinstance(value, tuple) else value for key, value in about.items()}
            models.append({"sha256": model.sha256, **about, "crop": model.cut.crop, "margin": model.cut.margin})
        return {"models": models, "fusion": None if self.fuser is None else self.fuser.sha256}


def _width(embedder: Embedder) -> int:
    return embedder.card.embedding_size * (2 if embedder.card.flip == "concat" else 1)


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _load_fusion(fusion: str | Path, sizes: tuple[int, ...], device: str) -> Any:
    raise ValueError(f"{fusion}: fusion is not there yet {sizes} {device}")
