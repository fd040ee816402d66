"""Foreign files become run folders that every command reads: the embeddings are those of the network they fill."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastface.config import RunConfig
from fastface.foreign import KINDS, import_weights
from fastface.models import build_backbone
from fastface.predictor import load_embedder
from fastface.tasks.networks import network_size


@pytest.mark.parametrize(
    ("kind", "mean", "std", "mirrored", "extra"),
    [
        ("mbf", 127.5, 127.5, True, None),
        ("inception_resnet_v1", 127.5, 128.0, False, "logits.weight"),
    ],
)
def test_run_folder_embeds_as_the_network_does(
    kind: str, mean: float, std: float, mirrored: bool, extra: str | None, tmp_path: Path
) -> None:
    side = 160 if kind == "inception_resnet_v1" else 112
    torch.manual_seed(0)
    network = build_backbone(kind, input_size=(side, side)).eval()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    if extra:
        state[f"module.{extra}"] = torch.zeros(3, 512)
    torch.save(state, tmp_path / "public.pt")
    line = import_weights(kind, tmp_path / "public.pt", tmp_path / "run")
    digest = hashlib.sha256((tmp_path / "public.pt").read_bytes()).hexdigest()
    assert digest[:16] in line
    assert ("logits.weight left out" in line) == bool(extra)
    assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in line

    embedder = load_embedder(tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    found = np.asarray(embedder(pixels))
    faces = (torch.from_numpy(pixels).float().permute(0, 3, 1, 2) - mean) / std
    with torch.no_grad():
        expected = network(faces).numpy()
        if mirrored:
            expected = expected + network(faces.flip(3)).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_valid_recipe_of_a_known_network(kind: str) -> None:
    config = RunConfig.model_validate_json(json.dumps(KINDS[kind].config))
    with torch.device("meta"):
        network = build_backbone(
            config.model.backbone,
            embedding_size=config.model.embedding_size,
            input_size=network_size(config.data, config.model),
        )
    assert network.input_size == {
        "mobilefacenet_128d": (96, 112),
        "inception_resnet_v1": (160, 160),
        "minifasnet": (80, 80),
    }.get(kind, (112, 112))


def test_what_does_not_fit_is_said_with_the_file(tmp_path: Path) -> None:
    torch.save({"logits.weight": torch.zeros(3, 512)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"the weights of .*other\.pt do not fit mbf .* 1 unexpected: logits\.weight"):
        import_weights("mbf", tmp_path / "other.pt", tmp_path / "run")
    with pytest.raises(ValueError, match=r"unknown kind 'mbf_larg'.*mbf_large"):
        import_weights("mbf_larg", tmp_path / "other.pt", tmp_path / "run")
    assert not (tmp_path / "run").exists()
