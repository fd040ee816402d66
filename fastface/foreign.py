"""Other projects' weights -> a run folder with their recipe, so that every fastface command takes them."""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fastface import __version__, checkpoint
from fastface.card import card_of
from fastface.config import RunConfig
from fastface.models import build_backbone
from fastface.models.weights import load_backbone_weights, read_foreign
from fastface.spelling import nearest
from fastface.tasks.networks import network_size


class Kind(NamedTuple):
    about: str
    config: dict[str, Any]
    """The owner's recipe: network, normalisation, use of the mirrored image."""


def _insightface(backbone: str) -> Kind:
    about = f"InsightFace arcface_torch {backbone}, 112x112, 512-d"
    return Kind(about, {"model": {"backbone": backbone}, "eval": {"flip": "sum"}})


KINDS = {
    "mobilefacenet_128d": Kind(
        "the public 128-d MobileFaceNet on 112x96, embedding and mirrored embedding concatenated, mean subtracted",
        {
            "model": {"backbone": "mobilefacenet", "embedding_size": 128, "window": [8, 0, 104, 112]},
            "data": {"mean": 127.5, "std": 128.0},
            "eval": {"flip": "concat", "centre": True},
        },
    ),
    **{f"iresnet{depth}": _insightface(f"iresnet{depth}") for depth in (18, 34, 50, 100, 200)},
    "mbf": _insightface("mbf"),
    "mbf_large": _insightface("mbf_large"),
    "inception_resnet_v1": Kind(
        "facenet-pytorch InceptionResnetV1 (VGGFace2 or CASIA-WebFace), 160x160 cut out with a margin, 512-d",
        {
            "model": {"backbone": "inception_resnet_v1"},
            "data": {"size": [160, 160], "mean": 127.5, "std": 128.0},
        },
    ),
}


def import_weights(kind: str, file: Path, out: Path) -> str:
    """Write a run folder with one checkpoint (step 0) from a foreign file; return a line that says what it holds.

    Raises:
        ValueError: for an unknown kind, an unreadable file, or names that do not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}{nearest(kind, KINDS)}; kinds: {', '.join(KINDS)}")
    if out.exists():
        raise ValueError(f"{out} exists already: choose another --out or remove it")
    recipe = KINDS[kind]
    config = RunConfig.model_validate_json(json.dumps(recipe.config))
    backbone = build_backbone(
        config.model.backbone,
        embedding_size=config.model.embedding_size,
        input_size=network_size(config.data, config.model),
    )
    load_backbone_weights(backbone, read_foreign(file), source=file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    state = {
        "config": config.model_dump(mode="json"),
        "card": card_of(config, {}).model_dump(mode="json"),
        "origin": {"kind": kind, "file": file.name, "sha256": digest},
        "versions": {"fastface": __version__, "python": platform.python_version()},
        "best": {},
    }
    (out / "checkpoints").mkdir(parents=True)
    (out / "config.yaml").write_text(config.dump(), encoding="utf-8")
    checkpoint.save(out / "checkpoints", 0, _prefixed(backbone), {}, state, keep=1)
    parameters = sum(p.numel() for p in backbone.parameters())
    return "; ".join([f"{out}: {recipe.about}", f"{parameters:,} parameters, sha256 {digest[:16]}", *backbone.notes])


def _prefixed(backbone: nn.Module) -> dict[str, Any]:
    return {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
