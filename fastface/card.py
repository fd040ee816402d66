"""What a model needs to be used rightly, as data: its input, its normalisation, its embedding, its thresholds."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fastface.config import RunConfig
from fastface.data.normalisation import PerColour


class Threshold(BaseModel):
    """Accept a pair whose similarity is at least `threshold`: the smallest that keeps FMR <= target."""

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


Precision = Literal["fp32", "fp16", "int8"]


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
    flip: Literal["none", "sum", "concat"] = "none"
    """What is done with the mirrored image's embedding."""
    centre: bool = False
    embedding_size: int
    """Of the network's output; twice that where flip is concat."""
    score: Literal["cosine"] = "cosine"
    """float64 dot product of L2-normalised embeddings, rounded to float32."""
    thresholds: list[Threshold] = []
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
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ValueError(
                f"{path} is missing: the .onnx file needs its card beside it, a .json file of its own name"
            ) from None
        except ValueError as error:
            raise ValueError(f"{path} is not a model card: {error}") from None


def card_of(config: RunConfig, shard_options: dict[str, Any]) -> Card:
    """Return the card of a model trained by this configuration on shards made with these options."""
    return Card(
        input_size=config.data.size,
        mean=config.data.mean,
        std=config.data.std,
        crop=shard_options.get("crop"),
        flip=config.eval.flip,
        centre=config.eval.centre,
        embedding_size=config.model.embedding_size,
    )
