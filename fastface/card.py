"""What a model needs to be used rightly, as data: its input, its normalisation, its embedding, its thresholds."""

import json
import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from fastface.config import RunConfig
from fastface.data.normalisation import PerColour

RULE = "accept iff score >= threshold, the smallest with FMR <= target on the calibration pairs; no interpolation"


class Threshold(BaseModel):
    """Accept a pair whose score is at least `threshold`: the smallest that keeps FMR <= target; and the evidence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_fmr: float
    threshold: float
    fmr: float
    """Reached on the calibration pairs."""
    tar: float
    """Genuine pairs accepted there, as a rate."""
    genuine: int
    """Pairs."""
    impostors: int
    """Pairs."""
    supported: bool
    """False where fewer than 30 impostor errors are expected at the target: take the figure as a guess."""
    source: str
    """The calibration pairs."""
    errors: int | None = None
    """Impostor pairs accepted; this and what follows is null in cards that are older."""
    fmr_interval: tuple[float, float] | None = None
    """With 95 % confidence, on other persons."""
    tar_interval: tuple[float, float] | None = None
    """Of the TAR at this threshold."""
    interval_method: str | None = None
    """Whether intervals allow for persons who recur."""
    rule: str | None = None
    dataset_id: str | None = None
    """Of the shard set that the calibration pairs are from, where they are from one."""
    pairs_sha256: str | None = None
    """Of the list of calibration pairs, by the names of their images."""
    model_sha256: str | None = None
    """Of the .onnx file that the threshold is for."""


class Calibration(BaseModel):
    """Log-likelihood ratio (natural logarithm) = a * score + b; the log-odds at a prior are LLR + logit(prior)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["platt"] = "platt"
    """Logistic regression in which genuine and impostor pairs weigh the same (Platt, 1999)."""
    a: float
    b: float
    genuine: int
    """Pairs it was fitted on."""
    impostors: int
    cllr: float
    """Bits a decision loses on pairs of other persons, each fold judged by the fit on the others; 1: no information."""
    min_cllr: float
    """What is left when the scores are calibrated perfectly: the loss of their order alone."""
    ece: float
    """Mean difference of stated and observed probability at prior 1/2, on the same held-out folds."""
    source: str
    """The calibration pairs."""
    dataset_id: str | None = None
    pairs_sha256: str
    model_sha256: str

    def llr(self, score: float) -> float:
        """Return the log-likelihood ratio of a score."""
        return self.a * score + self.b

    def probability(self, score: float, prior: float) -> float:
        """Return the probability that a pair of this score shows one person, where a share `prior` of pairs does."""
        log_odds = self.llr(score) + math.log(prior / (1 - prior))
        small = math.exp(-abs(log_odds))  # never overflows
        return (small if log_odds < 0 else 1.0) / (1 + small)


Precision = Literal["fp32", "fp16", "int8"]
OTHER_KINDS = {
    "match": "compares embeddings, and takes no images: evaluate.py --protocol match does",
    "fusion": "fuses embeddings, and takes no images: evaluate.py --protocol fusion does",
    "liveness": "tells live faces from attacks, and embeds nothing: evaluate.py --protocol liveness takes it",
    "temporal": "tells live clips from attacks, and embeds nothing: evaluate.py --protocol liveness takes it",
}
"""What is said of a model of another kind where one that embeds images is wanted."""


class Card(BaseModel):
    """The contents of model.json, model.int8.json and so on: each beside the .onnx file of its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Literal["recognition"] = "recognition"
    input_size: tuple[int, int]
    """Width, height in px."""
    colour: Literal["RGB"] = "RGB"
    layout: Literal["NCHW"] = "NCHW"
    mean: PerColour
    std: PerColour
    """The network takes (pixel - mean) / std, float32; one number, or one for each of red, green and blue."""
    crop: float | str | None = None
    """How images were cut before resizing, as given to make_shards --crop or --align; null: not cut."""
    margin: float | None = None
    """By which boxes were enlarged, as given to make_shards --margin, where crop is crop or pad; null: 0.25."""
    flip: Literal["none", "sum", "concat"] = "none"
    """What is done with the mirrored image's embedding."""
    centre: bool = False
    embedding_size: int
    """Of the network's output; twice that where flip is concat."""
    score: Literal["cosine"] = "cosine"
    """float64 dot product of L2-normalised embeddings, rounded to float32."""
    thresholds: list[Threshold] = []
    calibration: Calibration | None = None
    precision: Precision = "fp32"
    """Of the file's arithmetic; its input and its output are float32 always."""
    opset: int | None = None
    """ONNX operator set of the file."""
    quantisation: dict[str, Any] = {}
    """How a narrower file was made, and what it lost beside fp32 on the pairs of its thresholds."""
    training: dict[str, Any] = {}
    """Dataset id, number of identities, steps, configuration and versions."""

    @classmethod
    def beside(cls, model: Path) -> "Card":
        """Read the card of an .onnx file: the .json file of its name, else the folder's model.json."""
        own = model.with_suffix(".json")
        return cls.read(own if own.is_file() else model.with_name("model.json"))

    @classmethod
    def read(cls, path: Path) -> "Card":
        return cls.of(read_json(path), str(path))

    @classmethod
    def of(cls, content: Any, where: str) -> "Card":
        """Check the contents of a card; ValueError says what is wrong with it."""
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind in OTHER_KINDS:
            raise ValueError(f"{where} {OTHER_KINDS[kind]}")
        try:
            return cls.model_validate(content)
        except ValueError as error:
            raise ValueError(f"{where} is not a model card: {error}") from None


class RowsCard(BaseModel):
    """What the cards of models of embeddings share: the contents of model.json of what takes no images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    embedding_sizes: tuple[int, ...]
    """Values of each model's embedding; inputs have them side by side, as their models give them: float32 [B, sum]."""
    embeddings: list[dict[str, Any]]
    """Model and images that the training embeddings of each size were made by and of, and how many they were."""
    thresholds: list[Threshold] = []
    calibration: Calibration | None = None
    training: dict[str, Any] = {}
    """Dataset id, number of identities, steps, configuration and versions."""

    @classmethod
    def of(cls, content: Any) -> Self:
        """Check the contents of a card, as JSON has them."""
        return cls.model_validate_json(json.dumps(content))

    @classmethod
    def read(cls, path: Path) -> Self:
        try:
            return cls.of(read_json(path))
        except ValueError as error:
            what = {"match": "a matcher", "fusion": "a fusion"}[cls.model_fields["kind"].default]
            raise ValueError(f"{path} is not the card of {what}: {error}") from None


class MatchCard(RowsCard):
    """The contents of model.json of what compares embeddings."""

    kind: Literal["match"] = "match"
    score: Literal["log-odds"] = "log-odds"
    """At even odds, float32 [P], the same in either order."""


def read_json(path: Path) -> Any:
    """Read a card; ValueError where it is missing or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: the .onnx file needs its card beside it, a .json file of its own name"
        ) from None


def card_of(config: RunConfig, shard_options: dict[str, Any]) -> Card:
    """Return the card of a model trained by this configuration on shards made with these options."""
    return Card(
        input_size=config.data.size,
        mean=config.data.mean,
        std=config.data.std,
        crop=shard_options.get("crop"),
        margin=(shard_options.get("align") or {}).get("margin"),
        flip=config.eval.flip,
        centre=config.eval.centre,
        embedding_size=config.model.embedding_size,
    )
