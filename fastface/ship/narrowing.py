"""RUN -> its fp32 .onnx file, and files in fp16 and int8 made of that, each accepted by what it loses on pairs."""

import json
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel

from fastface import checkpoint
from fastface.card import Card, Precision
from fastface.config import RunConfig
from fastface.data.image_sets import ShardImages
from fastface.evaluators import evaluate_on, images_for
from fastface.predictor import find_checkpoint, open_onnx
from fastface.ship.acceptance import MAX_DROP, Verdict, judge
from fastface.ship.export import Exported, calibration_pairs, decisions_of, export
from fastface.ship.onnx_graph import opset_of, seal
from fastface.ship.quantisation import METHODS, SAMPLES, RangeImages, draw_images, to_fp16, to_int8
from fastface.ship.ranges import training_index
from fastface.ship.rows_export import ExportedRows
from fastface.ship.thresholds import TARGETS


class Narrower(NamedTuple):
    """A file that was accepted."""

    path: Path
    card: Card
    verdict: Verdict

    def report(self) -> str:
        lines = [
            f"{self.path}  ({self.path.stat().st_size / 1e6:.1f} MB, {self.card.precision}, opset {self.card.opset}, "
            "dynamic batch)",
            f"  {self.card.quantisation['method']}",
            f"  beside fp32, on {self.verdict.about}, a fall of {self.verdict.max_drop:g} being accepted:",
            self.verdict.report(),
        ]
        for t in self.card.thresholds:
            lines.append(f"  FMR {t.target_fmr:g}: threshold {t.threshold:.4f}, of its own scores")
        return "\n".join(lines)


class Exports(NamedTuple):
    whole: Exported | ExportedRows
    narrower: list[Narrower]
    refused: list[str]
    """Why each of the others was refused; of those nothing was written."""


def export_all(
    model: Path,
    precisions: Collection[Precision],
    *,
    out: Path | None = None,
    calibrate_on: Path | None = None,
    images: Path | None = None,
    int8_images: Path | None = None,
    int8_samples: int = SAMPLES,
    max_drop: float = MAX_DROP,
    targets: Sequence[float] | None = None,
    strict: bool = False,
) -> Exports:
    """Write the network in fp32, then in each narrower precision, as model.fp16.onnx and so on, with its own card.

    Thresholds are calibrated on the scores of each file. A narrower one must not lose more than `max_drop` of accuracy
    or TAR on the pairs of the thresholds.

    Args:
        model, out, calibrate_on, images, targets, strict: as of `export`.
        int8_images: shard set, folder or .tar of the images that set int8's ranges; default: the run's training shards.
        int8_samples: how many of them.

    Raises:
        ValueError: as `export`, and before anything is written where something is missing.
    """
    targets = targets or TARGETS
    chosen: list[Precision] = [precision for precision in ("fp16", "int8") if precision in precisions]
    if not chosen:
        made = export(model, out=out, calibrate_on=calibrate_on, images=images, targets=targets, strict=strict)
        return Exports(made, [], [])
    saved = find_checkpoint(model)
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    card = Card.of(saved.state["card"], f"fp16 and int8 are for networks of images, and {saved.path}")
    pairs = calibration_pairs(config, card, calibrate_on, images)
    if pairs is None:
        raise ValueError(
            "fp16 and int8 are accepted by what they lose on pairs, and the run has no evaluation set: "
            "give --calibrate PAIRS_OR_SHARDS"
        )
    ranges = range_images(config, card, int8_images, int8_samples) if "int8" in chosen else None
    whole = export(model, out=out, calibrate_on=calibrate_on, images=images, targets=targets, strict=strict)
    assert isinstance(whole, Exported)
    assert whole.result is not None
    reference = open_onnx(whole.path, whole.card)
    narrower: list[Narrower] = []
    refused: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".export-", dir=whole.path.parent) as work:
        for precision in chosen:
            path = Path(work) / f"model.{precision}.onnx"
            there = whole.path.with_name(path.name)
            older = f" ({there} is of an earlier export)" if there.exists() else ""
            about = convert(whole.path, path, precision, ranges, reference)
            card = whole.card.model_copy(update={"precision": precision, "opset": opset_of(path)})
            try:
                after = evaluate_on(pairs, open_onnx(path, card), batch=config.eval.batch_size, intervals=False)
            except ValueError as error:  # the pairs are fine: fp32 could be scored
                refused.append(f"{precision} refused, and not written{older}: {error}")
                continue
            verdict = judge(whole.result, after, pairs, max_drop=max_drop)
            if not verdict.accepted:
                refused.append(f"{precision} refused, and not written{older}: {verdict.reason}\n{verdict.report()}")
                continue
            of_fp32 = ("onnx_difference", "onnx_compared")
            made = {
                **decisions_of(after, pairs, path, targets, strict=strict),
                "quantisation": about | verdict.as_json(),
                "training": {key: value for key, value in card.training.items() if key not in of_fp32},
            }
            card = card.model_copy(update=made)
            narrower.append(Narrower(put(path, whole.path.parent, card), card, verdict))
    return Exports(whole, narrower, refused)


class Prepares(Protocol):
    """What makes images the input of a network."""

    def prepare(self, pictures: np.ndarray, /) -> np.ndarray:
        """Turn uint8 images, or clips, into what the network takes."""
        ...


def convert(
    source: Path, path: Path, precision: Precision, ranges: RangeImages | None, reference: Prepares
) -> dict[str, str]:
    """Write the fp32 file in another precision; return how, for its card."""
    about = {"method": METHODS[precision]}
    if precision == "fp16":
        to_fp16(source, path)
    else:
        assert ranges is not None
        to_int8(source, path, ranges.images, reference.prepare)
        about["images"] = ranges.about
    seal(path, precision)
    return about


def put(path: Path, folder: Path, card: BaseModel) -> Path:
    """Move a finished file into its folder, beside its card."""
    final = folder / path.name
    checkpoint.write_json(final.with_suffix(".json"), card.model_dump(mode="json"))
    return path.replace(final)


def range_images(config: RunConfig, card: Card, chosen: Path | None, count: int) -> RangeImages:
    """Draw the images whose activations set int8's ranges, from the run's training shards where none are named."""
    images = ShardImages(training_index(config)) if chosen is None else images_for(card, chosen)
    return draw_images(images, card.input_size, count)
