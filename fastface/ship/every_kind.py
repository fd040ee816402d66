"""RUN of any task -> its .onnx files, each checked, calibrated and described: the one door to export."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from fastface.card import Precision
from fastface.predictor import find_checkpoint
from fastface.ship.acceptance import MAX_DROP
from fastface.ship.attack_export import export_attacks
from fastface.ship.attack_kinds import ATTACK_KINDS
from fastface.ship.narrowing import export_all
from fastface.ship.quantisation import SAMPLES


class Written(Protocol):
    """A file that was written."""

    @property
    def path(self) -> Path: ...

    def report(self) -> str:
        """Say what it is and what it was judged by, in lines."""
        ...


class Made(NamedTuple):
    """What became of a run."""

    files: Sequence[Written]
    """model.onnx first."""
    refused: list[str]
    """Why narrower files were not written."""


def export_model(
    model: Path,
    precisions: Collection[Precision] = (),
    *,
    out: Path | None = None,
    calibrate_on: Path | None = None,
    images: Path | None = None,
    targets: Sequence[float] | None = None,
    strict: bool = False,
    int8_images: Path | None = None,
    int8_samples: int = SAMPLES,
    max_drop: float = MAX_DROP,
) -> Made:
    """Write a run's model as model.onnx, model.fp16.onnx and so on into `out` (default: the run folder's export/).

    Args:
        precisions: fp16 and int8, beside fp32; each must not lose more than `max_drop` of what its task is judged by:
            accuracy and TAR of recognition, ACER of liveness.
        calibrate_on: what thresholds are chosen on: pairs or shards, of liveness a shard set of live and spoof;
            default: the run's first evaluation set.
        images: where a pairs file's images, or embeddings, are.
        targets: false match rates, of liveness APCERs, to choose thresholds for; default: those of the kind.
        strict: refuse targets that the calibration pairs are too few for, instead of marking them.
        int8_images, int8_samples: what sets int8's ranges; default: the run's training shards.

    Raises:
        ValueError: where onnxruntime and torch do not agree, or before anything is written where something is missing.
    """
    if not 0 <= max_drop < 1:
        raise ValueError(f"--max-drop {max_drop:g} is not a rate from 0 to 1, such as 0.01 for a point in a hundred")
    if int8_samples < 1:
        raise ValueError(f"--int8-samples {int8_samples}: at least one image must set the ranges")
    saved = find_checkpoint(model)
    int8 = {"int8_images": int8_images, "int8_samples": int8_samples, "max_drop": max_drop}
    if saved.state["card"].get("kind") in ATTACK_KINDS:
        if images is not None or strict:
            raise ValueError(
                f"{saved.path} tells live from attacks, and knows no pairs: leave out --images and --strict"
            )
        narrower: list[Precision] = [precision for precision in ("fp16", "int8") if precision in precisions]
        return Made(*export_attacks(saved, narrower, out=out, calibrate_on=calibrate_on, targets=targets, **int8))
    given = {"out": out, "calibrate_on": calibrate_on, "images": images, "targets": targets, "strict": strict}
    made = export_all(model, precisions, **given, **int8)
    return Made([made.whole, *made.narrower], made.refused)
