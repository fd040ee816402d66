"""timm networks: the stem change per family, the neck, what is removed, and names that do not exist."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import timm
import torch

from fastface.models import build_backbone, count_gmacs
from fastface.models.timm_backbone import STEM_CONVS, TimmBackbone

# Name -> 1e9 multiply-adds of the network with its stem changed, where known from elsewhere.
MAPS = {
    "resnet50": 4.09,
    "resnet10t": None,
    "mobilenetv3_small_100": None,
    "efficientnet_b0": 0.38,
    "convnext_atto": None,
    "edgenext_xx_small": None,
    "swin_tiny_patch4_window7_224": None,
    "regnetx_002": None,
    "pvt_v2_b0": None,
}


@functools.cache  # on the meta device a network is its shapes: one build serves several tests
def build(name: str, **options: Any) -> TimmBackbone:
    with torch.device("meta"):
        network = build_backbone(name, **options)
    assert isinstance(network, TimmBackbone)
    return network


@pytest.mark.parametrize("name", MAPS)
def test_last_map_is_7x7_at_112(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = build(name, embedding_size=24)
    assert network.final_map == (7, 7)
    assert network.neck.fc.in_features % 49 == 0
    assert (network.name, network.embedding_size, network.input_size) == (name, 24, (112, 112))
    with torch.device("meta"):
        assert network(torch.zeros(2, 3, 112, 112)).shape == (2, 24)
    if MAPS[name] is not None:
        assert count_gmacs(network) - network.neck.fc.weight.numel() / 1e9 == pytest.approx(MAPS[name], rel=0.08)


def test_keep_leaves_the_stem_and_gives_4x4() -> None:
    assert build("resnet18", stem="keep").final_map == (4, 4)
    assert build("resnet18", stem="keep").net.conv1.stride == (2, 2)
    assert build("resnet18").net.conv1.stride == (1, 1)


def test_large_inputs_keep_the_stem() -> None:
    network = build("resnet18", input_size=(224, 192))
    assert network.net.conv1.stride == (2, 2)
    assert network.final_map == (7, 6)


@pytest.mark.parametrize("input_size", [(64, 64), (96, 112)])
def test_other_small_inputs(input_size: tuple[int, int]) -> None:
    network = build("mobilenetv3_small_050", input_size=input_size)
    assert network.final_map == (input_size[0] // 16, input_size[1] // 16)


def test_token_models_get_half_the_patch_and_a_plain_linear_neck() -> None:
    network = build("vit_tiny_patch16_224", embedding_size=24)
    assert network.net.patch_embed.patch_size == (8, 8)
    assert network.net.pos_embed.shape == (1, 1 + 14 * 14, 192)
    assert network.neck.fc.weight.shape == (24, 192)
    with torch.device("meta"):
        assert network(torch.zeros(2, 3, 112, 112)).shape == (2, 24)
    assert build("vit_tiny_patch16_224", stem="keep").net.patch_embed.patch_size == (16, 16)


def test_channels_last_maps_reach_the_neck_as_channels_first() -> None:
    network = build("swin_tiny_patch4_window7_224", input_size=(64, 64))
    assert network.layout == "nhwc"
    assert network.final_map == (4, 4)
    assert network.neck.state_dict()["bn.weight"].shape == (768,)


def test_unknown_stem_warns_with_the_size_of_the_map() -> None:
    with pytest.warns(UserWarning, match="vgg11.*3x3 cells; about 7x7"):
        build("vgg11", embedding_size=8)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224", "resnet10t"])
def test_every_parameter_left_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    network = build_backbone(name, embedding_size=8, input_size=(32, 32)).train()
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    without = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["neck.features.weight"]


def test_layers_behind_the_map_are_removed() -> None:
    network = build("mobilenetv3_small_100")
    assert isinstance(network.net.conv_head, torch.nn.Identity)
    with torch.device("meta"):
        whole = timm.create_model("mobilenetv3_small_100", num_classes=0)
    removed = {n for n, _ in whole.named_parameters()} - {n for n, _ in network.net.named_parameters()}
    assert removed == {"conv_head.weight", "conv_head.bias"}


def test_building_leaves_running_statistics_and_mode_alone() -> None:
    network = build_backbone("mobilenetv3_small_050", embedding_size=8, input_size=(32, 32))
    assert network.training
    assert all(m.training for m in network.modules())
    for name, value in network.named_buffers():
        if name.endswith("running_mean"):
            assert not value.any(), name
        if name.endswith("num_batches_tracked"):
            assert value.item() == 0, name
    assert all(p.grad is None for p in network.parameters())


def test_neck_runs_in_float32_under_autocast() -> None:
    network = build_backbone("mobilenetv3_small_050", embedding_size=8, input_size=(32, 32)).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(torch.randn(1, 3, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "message"),
    [("resnet5o", "did you mean resnet50"), ("iresnet51", "iresnet50"), ("mobilefacenets", "mobilefacenet")],
)
def test_unknown_names_get_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "iresnet18", "pretrained": True}, "no weights to download"),
        ({"name": "resnet18", "stem": "small"}, "auto, keep"),
        ({"name": "resnet18", "dropout": 1.0}, "dropout"),
        ({"name": "resnet18", "embedding_size": 0}, "embedding_size"),
        ({"name": "vit_tiny_patch16_224", "input_size": (60, 64)}, "multiples of 8"),
        ({"name": "mobilefacenet", "input_size": (8, 112)}, "input_size"),
        ({"name": "resnet18.no_such_tag", "pretrained": True}, "no_such_tag"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(**options)


def test_stem_table_lists_each_place_once() -> None:
    assert len(set(STEM_CONVS)) == len(STEM_CONVS)


def test_branches_are_left_out_in_training_only() -> None:
    torch.manual_seed(0)
    network = build_backbone("test_vit", embedding_size=8, input_size=(64, 64), drop_path=0.5)
    images = torch.randn(4, 3, 64, 64)
    network.eval()
    assert torch.equal(network(images), network(images))
    network.net.train()  # the neck's BatchNorm would move
    assert not torch.equal(network(images), network(images))
    plain = build_backbone("test_vit", embedding_size=8, input_size=(64, 64)).eval()
    plain.load_state_dict(network.state_dict())
    assert torch.equal(plain(images), network.eval()(images))


def test_our_own_networks_leave_out_no_branches() -> None:
    with pytest.raises(ValueError, match="drop_path"):
        build_backbone("iresnet18", drop_path=0.1)
