"""Other projects' weights -> a run folder with their recipe, so that every fastface command takes them."""

import hashlib
import json
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel
from torch import nn

from fastface import __version__, checkpoint
from fastface.card import card_of
from fastface.config import RunConfig
from fastface.liveness_card import LivenessCard
from fastface.models import Backbone, build_backbone
from fastface.models.liveness import LivenessNetwork
from fastface.models.weights import load_backbone_weights, read_foreign
from fastface.spelling import nearest
from fastface.tasks.networks import network_size


class Imported(NamedTuple):
    """A network filled from a file, and what it needs to be used."""

    config: RunConfig
    network: Backbone
    card: BaseModel


def read_backbone(config: RunConfig, file: Path) -> Imported:
    """Fill the backbone of a configuration."""
    backbone = build_backbone(
        config.model.backbone,
        embedding_size=config.model.embedding_size,
        input_size=network_size(config.data, config.model),
    )
    load_backbone_weights(backbone, read_foreign(file), source=file)
    return Imported(config, backbone, card_of(config, {}))


MINIFASNET = re.compile(r"(\d+(?:\.\d+)?)(?:_0_0)?_(\d+)x(\d+)_MiniFASNet(V1|V2)(SE)?\.pth")
"""Scale of the crop, height and width in px, variant; 4_0_0 is 4.0, not shifted."""


def read_minifasnet(config: RunConfig, file: Path) -> Imported:
    """Fill a public MiniFASNet, whose file name says which it is and how it sees faces.

    Its owner feeds BGR pixels of 0 to 255 as they are, which OpenCV reads and a ToTensor of their own does not divide:
    the first convolution's inputs are reversed, for RGB, with mean 0 and std 1. Class 1 of its three is live. Its
    classifier has no bias, ours begins with one of 0.
    """
    found = MINIFASNET.fullmatch(file.name)
    if found is None:
        raise ValueError(
            f"{file.name} does not say which network it holds: keep the public name, such as "
            "2.7_80x80_MiniFASNetV2.pth or 4_0_0_80x80_MiniFASNetV1SE.pth"
        )
    scale, height, width, variant, excited = found.groups()
    name, size = f"minifasnet_{variant}{excited or ''}".lower(), (int(width), int(height))
    config = config.model_copy(
        update={
            "model": config.model.model_copy(update={"backbone": name, "dropout": 0.75 if excited else 0.2}),
            "data": config.data.model_copy(update={"size": size}),
        }
    )
    classes = ("spoof 0", "live", "spoof 2")
    body = build_backbone(name, embedding_size=128, input_size=size, dropout=config.model.dropout)
    network = LivenessNetwork(body, classes)
    tensors = read_foreign(file)
    weight = tensors.pop("prob.weight", None)
    if weight is None or weight.shape != network.classifier.weight.shape:
        shape = "missing" if weight is None else f"of shape {tuple(weight.shape)}"
        raise ValueError(f"{file} is no public MiniFASNet: prob.weight is {shape}, three classes of 128 were expected")
    if "conv1.conv.weight" in tensors:
        tensors["conv1.conv.weight"] = tensors["conv1.conv.weight"].flip(1)  # BGR -> RGB
    load_backbone_weights(body, tensors, source=file)
    with torch.no_grad():
        network.classifier.weight.copy_(weight)
        network.classifier.bias.zero_()
    crop = f"context-{float(scale):g}-stretched"
    card = LivenessCard(input_size=size, mean=config.data.mean, std=config.data.std, crop=crop, classes=classes, live=1)
    return Imported(config, network, card)


class Kind(NamedTuple):
    about: str
    config: dict[str, Any]
    """The owner's recipe: network, normalisation, use of the mirrored image."""
    read: Callable[[RunConfig, Path], Imported] = read_backbone


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
    "minifasnet": Kind(
        "a public MiniFASNet that tells live faces from attacks, V1, V2, V1SE or V2SE by the name of its file",
        {
            "task": {"name": "liveness"},
            "model": {"backbone": "minifasnet_v2", "embedding_size": 128},
            "data": {"size": [80, 80], "mean": 0.0, "std": 1.0},
        },
        read_minifasnet,
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
    config, network, card = recipe.read(RunConfig.model_validate_json(json.dumps(recipe.config)), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    state = {
        "config": config.model_dump(mode="json"),
        "card": card.model_dump(mode="json"),
        "origin": {"kind": kind, "file": file.name, "sha256": digest},
        "versions": {"fastface": __version__, "python": platform.python_version()},
        "best": {},
    }
    (out / "checkpoints").mkdir(parents=True)
    (out / "config.yaml").write_text(config.dump(), encoding="utf-8")
    checkpoint.save(out / "checkpoints", 0, _prefixed(network), {}, state, keep=1)
    parameters = sum(p.numel() for p in network.parameters())
    return "; ".join([f"{out}: {recipe.about}", f"{parameters:,} parameters, sha256 {digest[:16]}", *network.notes])


def _prefixed(network: nn.Module) -> dict[str, Any]:
    return {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}
