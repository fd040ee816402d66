"""RUN that tells live from attacks -> ONNX files in fp32, fp16 and int8, each with its card, judged by its ACER."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastface import checkpoint
from fastface.card import Precision
from fastface.config import RunConfig
from fastface.eval_settings import EvalSet
from fastface.liveness_card import LiveThreshold
from fastface.liveness_scorer import live_probability
from fastface.metrics.attacks import AttackFigures, presented_figures, threshold_at
from fastface.metrics.presentations import Presentations, gather_presentations
from fastface.ship.attack_acceptance import AttackVerdict, judge_attacks
from fastface.ship.attack_kinds import ATTACK_KINDS, AttackKind, AttackModel, AttackPictures
from fastface.ship.narrowing import convert, put
from fastface.ship.onnx_graph import opset_of, seal, spell_out_prelu, write_graph
from fastface.ship.thresholds import sha256_of

TOLERANCE = 1e-4
"""Largest accepted difference of a probability of live, torch against onnxruntime, both float32."""
COMPARED = 256
"""Images or clips compared."""
APCERS = (0.1, 0.05, 0.01)
"""Attack error rates that thresholds are chosen for, those of BPCER10, BPCER20 and BPCER100 (ISO/IEC 30107-3)."""


class AttackFile(NamedTuple):
    """A file that was written."""

    path: Path
    card: Any
    said: list[str]
    """How it was made and compared."""
    figures: AttackFigures | None
    """On the development set; None where there is none."""

    def report(self) -> str:
        card = self.card
        size = f"{self.path.stat().st_size / 1e6:.1f} MB, {card.precision}, opset {card.opset}, dynamic batch"
        lines = [f"{self.path}  ({size})", *(f"  {line}" for line in self.said)]
        for t in card.thresholds:
            lines.append(
                f"  threshold {t.threshold:.4f} at {t.rule}: APCER {t.apcer:.4f}, BPCER {t.bpcer:.4f}; {t.source}"
            )
        if not card.thresholds:
            lines.append("  no threshold: the run has no evaluation set; give --calibrate SHARDS")
        return "\n".join(lines)


class Development(NamedTuple):
    """The set that thresholds are chosen and narrower files judged on."""

    opened: AttackPictures
    batch: int

    def score(self, model: AttackModel, kind: AttackKind) -> Presentations:
        """Score all of it, one presentation a clip."""
        opened = self.opened
        scores = live_probability(kind.score(opened, model, batch=self.batch), model.card.live)
        return gather_presentations(scores, opened.live, opened.attack, opened.clip)


def export_attacks(
    saved: checkpoint.Checkpoint,
    precisions: Sequence[Precision],
    *,
    out: Path | None,
    calibrate_on: Path | None,
    int8_images: Path | None,
    int8_samples: int,
    max_drop: float,
    targets: Sequence[float] | None,
) -> tuple[list[AttackFile], list[str]]:
    """Write model.onnx, and model.fp16.onnx and so on for `precisions`; return the files, and why others were refused.

    Args:
        calibrate_on: a shard set of live and spoof, the development set; default: the run's first evaluation set.
        targets: APCERs that thresholds are chosen for, beside the EER; default: APCERS.
        int8_images: a shard set whose images set int8's ranges; default: the run's training shards.

    Raises:
        ValueError: where onnxruntime and torch differ by more than TOLERANCE, or a set that is needed is missing.
    """
    kind = ATTACK_KINDS[saved.state["card"]["kind"]]
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    card = kind.card_of(saved)
    ours = kind.model(saved, card)
    development = open_development(config, kind, card, calibrate_on)
    if precisions and development is None:
        raise ValueError(
            "fp16 and int8 are accepted by what they lose on a development set, and the run has no evaluation set: "
            "give --calibrate SHARDS"
        )
    rules = ["eer", *(f"apcer={target:g}" for target in targets or APCERS)]
    ranges = kind.range_images(config, card, int8_images, int8_samples) if "int8" in precisions else None
    folder = out or saved.path.parent.parent / "export"
    folder.mkdir(parents=True, exist_ok=True)
    refused: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as work:
        whole = Path(work) / "model.onnx"
        write_graph(kind.network(saved, card), (kind.example(card),), (kind.inputs,), ("logits",), whole)
        spell_out_prelu(whole)
        seal(whole, "fp32")
        card = card.model_copy(update={"opset": opset_of(whole)})
        exported = kind.open(whole, card)
        difference, about = compare(kind, ours, exported, development)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"onnxruntime differs from torch by {difference:.1e} on {about}; at most {TOLERANCE} is allowed"
            )
        kept = ("step", "dataset_id", "config", "versions", "origin")
        training = {key: saved.state[key] for key in kept if key in saved.state}
        before = None if development is None else development.score(exported, kind)
        thresholds = [] if before is None or development is None else table(before, rules, development, whole)
        compared = {"onnx_difference": difference, "onnx_compared": about}
        card = card.model_copy(update={"thresholds": thresholds, "training": training | compared})
        said = f"onnxruntime differs from torch by at most {difference:.1e} (probability of live, {about})"
        files = [AttackFile(whole, card, [said], None if before is None else presented_figures(before, None))]
        for precision in precisions:
            assert development is not None
            assert before is not None
            path = Path(work) / f"model.{precision}.onnx"
            method = convert(whole, path, precision, ranges, ours)
            own = card.model_copy(update={"precision": precision, "opset": opset_of(path)})
            try:
                after = development.score(kind.open(path, own), kind)
            except ValueError as error:
                refused.append(f"{precision} refused, and not written: {error}")
                continue
            verdict = judge_attacks(before, after, max_drop=max_drop, about=development.opened.about)
            if not verdict.accepted:
                refused.append(f"{precision} refused, and not written: {verdict.reason}\n{verdict.report()}")
                continue
            files.append(narrower(path, own, verdict, method, table(after, rules, development, path), training))
        return [file._replace(path=put(file.path, folder, file.card)) for file in files], refused


def open_development(config: RunConfig, kind: AttackKind, card: Any, chosen: Path | None) -> Development | None:
    """Open the development set; None where the run has none and none is given."""
    settings = EvalSet(images=chosen) if chosen is not None else next(iter(config.eval.sets.values()), None)
    return None if settings is None else Development(kind.open_set(settings, card), config.eval.batch_size)


def compare(
    kind: AttackKind, ours: AttackModel, exported: AttackModel, development: Development | None
) -> tuple[float, str]:
    """Return the largest difference of two models' probabilities of live, and what they were compared on."""
    live = ours.card.live
    if development is None:  # an imported network without data: noise is all there is
        noise = np.random.default_rng(0).integers(0, 256, (32, *kind.shape(ours.card)), dtype=np.uint8)
        pictures, about = noise, "noise: the run has no evaluation set"
    else:
        images = development.opened.pictures
        ids = np.linspace(0, len(images) - 1, min(COMPARED, len(images))).astype(np.int64)
        pictures = np.stack([images.load(int(i)) for i in np.unique(ids)])
        about = f"{len(pictures)} of {development.opened.about}"
    differences = []
    for size in (1, 7, 64):  # the batch is dynamic: several sizes take part
        for start in range(0, len(pictures), 64):
            part = pictures[start : start + size]
            first, second = (live_probability(model.logits(part), live) for model in (ours, exported))
            differences.append(np.abs(first - second).max())
    return float(np.max(differences)), about  # numpy's max keeps a NaN, which then is refused


def table(presented: Presentations, rules: Sequence[str], development: Development, file: Path) -> list[LiveThreshold]:
    """Choose a threshold by each rule, of the development set."""
    found = []
    for rule in rules:
        threshold = threshold_at(presented, rule)
        metrics = presented_figures(presented, threshold).metrics
        found.append(
            LiveThreshold(
                rule=rule,
                threshold=threshold,
                apcer=metrics["apcer"],
                bpcer=metrics["bpcer"],
                source=development.opened.about,
                dataset_id=development.opened.dataset_id,
                model_sha256=sha256_of(file),
            )
        )
    return found


def narrower(
    path: Path,
    card: Any,
    verdict: AttackVerdict,
    method: dict[str, str],
    thresholds: list[LiveThreshold],
    training: dict[str, Any],
) -> AttackFile:
    """Put together what is told of an accepted file."""
    own = {"thresholds": thresholds, "training": training, "quantisation": method | verdict.as_json()}
    beside = f"beside fp32, on {verdict.about}, a rise of {verdict.max_drop:g} of ACER being accepted:"
    said = [method["method"], beside, *(line.strip() for line in verdict.report().splitlines())]
    return AttackFile(path, card.model_copy(update=own), said, verdict.after)
