"""RUN -> ONNX files with their cards: checked against torch on real images, thresholds calibrated, losses bounded."""

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import nn

from fastface import checkpoint
from fastface.acceptance import MAX_DROP, Verdict, judge
from fastface.card import Card, Precision, Threshold
from fastface.config import EvalSet, RunConfig
from fastface.data.image_sets import ShardImages
from fastface.evaluation import Result, unit
from fastface.evaluators import PairSet, evaluate_on, images_for, open_pairs
from fastface.metrics.verification import calibrate
from fastface.predictor import PRECISION, Embedder, find_checkpoint, load_embedder, load_network, open_onnx
from fastface.quantisation import METHOD, SAMPLES, RangeImages, draw_images, opset_of, to_fp16, to_int8
from fastface.run import open_shards

TOLERANCE = 1e-4
"""Largest accepted difference of any entry of the unit embeddings, torch against onnxruntime, both float32."""
COMPARED = 256
"""Images compared."""


ORDER: tuple[Precision, ...] = ("fp32", "fp16", "int8")


class Exported(NamedTuple):
    path: Path
    card: Card
    difference: float
    about: str
    """What was compared."""
    verdict: Verdict | None = None
    """What a narrower file loses beside fp32."""

    def report(self) -> str:
        lines = [
            f"{self.path}  ({self.path.stat().st_size / 1e6:.1f} MB, {self.card.precision}, opset {self.card.opset}, "
            "dynamic batch)",
            f"  onnxruntime differs from torch by at most {self.difference:.1e} (unit embeddings, {self.about})",
        ]
        for t in self.card.thresholds:
            doubt = "" if t.supported else "  ! fewer than 30 errors expected: a guess"
            lines.append(
                f"  FMR {t.target_fmr:g}: threshold {t.threshold:.4f}, TAR {t.tar:.4f} "
                f"({t.genuine:,} genuine, {t.impostors:,} impostor pairs){doubt}"
            )
        if not self.card.thresholds:
            lines.append("  no threshold: the run has no evaluation set; give --calibrate PAIRS_OR_SHARDS")
        if self.verdict is not None:
            lines += [f"  beside fp32, a fall of {self.verdict.max_drop:g} being accepted:", self.verdict.report()]
        return "\n".join(lines)


def export(
    model: Path, *, out: Path | None = None, calibrate_on: Path | None = None, images: Path | None = None
) -> Exported:
    """Write the network as model.onnx and model.json, in fp32: `export_all` with one precision."""
    return export_all(model, ["fp32"], out=out, calibrate_on=calibrate_on, images=images)[0][0]


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
) -> tuple[list[Exported], list[str]]:
    """Write the network in each precision, with a card of its own, into `out` (default: the run folder's export/).

    fp32 must agree with torch. fp16 and int8 must not lose more than `max_drop` of the accuracy and of the TAR on the
    pairs of the thresholds, which are calibrated on the scores of each file.

    Args:
        model: run folder (its best checkpoint, else its newest) or step folder.
        calibrate_on: a shard set, or a pairs file about `images`; default: the run's first evaluation set.
        images: shard set, folder or .tar that a pairs file speaks of.
        int8_images: shard set, folder or .tar of the images that set int8's ranges; default: the run's training shards.
        int8_samples: how many of them.

    Returns:
        What was written, and why each of the other precisions was refused; of those nothing is left behind.

    Raises:
        ValueError: where onnxruntime and torch differ by more than TOLERANCE in fp32, or something needed is missing.
    """
    if not 0 <= max_drop < 1:
        raise ValueError(
            f"--max-drop {max_drop:g} is a rate from 0 to 1: 0.01 accepts a fall of one point in a hundred"
        )
    if int8_samples < 1:
        raise ValueError(f"--int8-samples {int8_samples}: at least one image must set the ranges")
    saved = find_checkpoint(model)
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    embedder = load_embedder(saved.path)
    pairs = calibration_pairs(config, embedder.card, calibrate_on, images)
    chosen: list[Precision] = [precision for precision in ORDER if precision in precisions]
    if pairs is None and chosen != ["fp32"]:
        raise ValueError(
            "fp16 and int8 are accepted by what they lose on pairs, and the run has no evaluation set: "
            "give --calibrate PAIRS_OR_SHARDS"
        )
    ranges = range_images(config, embedder.card, int8_images, int8_samples) if "int8" in chosen else None
    kept = ("step", "dataset_id", "num_classes", "config", "versions", "origin")
    training = {key: saved.state[key] for key in kept if key in saved.state}
    folder = out or saved.path.parent.parent / "export"
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Exported] = []
    refused: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as work:
        source = Path(work) / "fp32.onnx"
        write_onnx(load_network(saved), embedder.card, source)
        difference, about = compare(embedder, open_onnx(source, embedder.card), pairs)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"onnxruntime differs from torch by {difference:.1e} on {about}; at most {TOLERANCE} is allowed"
            )
        scored = None if pairs is None else evaluate_on(pairs, embedder, batch=config.eval.batch_size)
        for precision in chosen:
            card = embedder.card.model_copy(update={"precision": precision, "opset": opset_of(source)})
            path, verdict, result = source, None, scored
            if precision != "fp32":
                assert pairs is not None
                assert scored is not None
                path = Path(work) / f"{precision}.onnx"
                how = narrow(source, path, precision, ranges, embedder)
                narrower = open_onnx(path, card)
                try:
                    result = evaluate_on(pairs, narrower, batch=config.eval.batch_size)
                except ValueError as error:  # fp32 could be scored
                    refused.append(f"{precision} refused, nothing written: {error}")
                    continue
                verdict = judge(scored, result, pairs, max_drop=max_drop)
                if not verdict.accepted:
                    refused.append(f"{precision} refused, nothing written: {verdict.reason}\n{verdict.report()}")
                    continue
                difference, about = compare(embedder, narrower, pairs)
                card = card.model_copy(update={"quantisation": {**how, **verdict.as_json()}})
            thresholds = [] if pairs is None or result is None else thresholds_of(result, pairs)
            measured = {"onnx_difference": difference, "onnx_compared": about}
            card = card.model_copy(update={"thresholds": thresholds, "training": training | measured})
            written.append(Exported(put(path, folder, card), card, difference, about, verdict))
    return written, refused


def narrow(
    source: Path, path: Path, precision: Precision, ranges: RangeImages | None, embedder: Embedder
) -> dict[str, Any]:
    """Write the fp32 file in another precision; return how, for its card."""
    if precision == "fp16":
        to_fp16(source, path)
        return {"method": "weights and arithmetic in float16"}
    assert ranges is not None
    to_int8(source, path, ranges.images, embedder.prepare)
    return {"method": METHOD, "images": ranges.about}


def put(path: Path, folder: Path, card: Card) -> Path:
    """Move a finished file into its folder, beside its card, under the name of its precision."""
    name = "model" if card.precision == "fp32" else f"model.{card.precision}"
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {PRECISION: card.precision})
    marked = path.with_name(f"{name}.onnx")
    onnx.save(model, marked)
    checkpoint.write_json(folder / f"{name}.json", card.model_dump(mode="json"))
    return marked.replace(folder / marked.name)


def range_images(config: RunConfig, card: Card, chosen: Path | None, count: int) -> RangeImages:
    """Draw the images whose activations set int8's ranges, from the run's training shards where none are named."""
    if chosen is not None:
        return draw_images(images_for(card, chosen), card, count)
    if config.data.shards is None and not config.data.sources:
        raise ValueError(
            "this model brings no training shards, whose images would set int8's ranges: give --int8-images "
            "DIR_OR_SHARDS, faces cut as it takes them, of no test set"
        )
    try:
        images = ShardImages(open_shards(config))
    except (ValueError, OSError) as error:
        raise ValueError(f"the run's training shards cannot be opened, give --int8-images: {error}") from None
    return draw_images(images, card, count)


def calibration_pairs(config: RunConfig, card: Card, chosen: Path | None, images: Path | None) -> PairSet | None:
    """Open the pairs whose scores set the thresholds."""
    if chosen is None:
        first = next(iter(config.eval.sets.values()), None)
        return None if first is None else open_pairs(first, card, seed=config.eval.seed)
    if (chosen / "meta.json").is_file():
        return open_pairs(EvalSet(images=chosen), card, seed=config.eval.seed)
    if images is None and isinstance(config.data.shards, Path):  # not a URL
        images = config.data.shards
    if images is None:
        raise ValueError(
            f"{chosen} is not a shard set; for a pairs file say where its images are: --images DIR_OR_SHARDS"
        )
    return open_pairs(EvalSet(images=images, pairs=chosen), card)


def thresholds_of(result: Result, pairs: PairSet) -> list[Threshold]:
    return [Threshold(**t._asdict(), source=pairs.about) for t in calibrate(result.scores, result.same)]


def write_onnx(network: nn.Module, card: Card, path: Path) -> None:
    """Export normalised float32 [batch, 3, H, W] -> [batch, D] as one file, its weights inside."""
    width, height = card.input_size
    example = torch.zeros(2, 3, height, width)
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's remarks about its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network.eval(),
            (example,),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=({0: batch},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)


def compare(ours: Embedder, exported: Embedder, pairs: PairSet | None) -> tuple[float, str]:
    """Return the largest difference between two embedders' unit embeddings, and what they were compared on."""
    width, height = ours.card.input_size
    if pairs is None:  # an imported network without data: noise is all there is
        noise = np.random.default_rng(0).integers(0, 256, (32, height, width, 3), dtype=np.uint8)
        chosen, about = noise, "32 images of noise: the run has no evaluation set"
    else:
        ids = np.unique(np.concatenate([pairs.pairs.first, pairs.pairs.second]))[:COMPARED]
        chosen = np.stack([pairs.images.load(int(i)) for i in ids])
        about = f"{len(ids)} images of {pairs.images.where}"
    differences = []
    for size in (1, 7, 64):  # the batch is dynamic: several sizes take part
        for start in range(0, len(chosen), 64):
            part = chosen[start : start + size]
            differences.append(np.abs(unit(ours(part)) - unit(exported(part))).max())
    return float(np.max(differences)), about  # numpy's max keeps a NaN, which then is refused
