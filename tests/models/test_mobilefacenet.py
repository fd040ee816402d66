"""MobileFaceNet: size, shapes for other inputs, and the public weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fastface.models import build_backbone, count_gmacs, load_backbone_weights, read_foreign


def test_parameters_and_work() -> None:
    with torch.device("meta"):
        network = build_backbone("mobilefacenet", embedding_size=128, input_size=(96, 112))
    # 999,552 is what the public 112x96 PyTorch weights hold, counters and running statistics left aside.
    assert sum(p.numel() for p in network.parameters()) == 999_552
    with torch.device("meta"):
        square = build_backbone("mobilefacenet", embedding_size=128)
    assert count_gmacs(square) == pytest.approx(0.221, abs=0.001)  # the paper's 221 million


@pytest.mark.parametrize(("input_size", "kernel"), [((112, 112), (7, 7)), ((96, 112), (7, 6)), ((64, 64), (4, 4))])
def test_global_convolution_covers_the_last_map(input_size: tuple[int, int], kernel: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = build_backbone("mobilefacenet", embedding_size=20, input_size=input_size)
        assert network(torch.zeros(2, 3, input_size[1], input_size[0])).shape == (2, 20)
    assert network.state_dict()["global_depthwise.conv.weight"].shape == (512, 1, *kernel)


def test_trains_one_step_and_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = build_backbone("mobilefacenet", embedding_size=8, input_size=(32, 32), dropout=0.1)
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_last_convolution_stays_in_float32_under_autocast() -> None:
    network = build_backbone("mobilefacenet", embedding_size=8, input_size=(32, 32)).eval()
    seen = {}
    network.get_submodule("last").register_forward_hook(lambda m, i, o: seen.update(body=o.dtype))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(torch.randn(1, 3, 32, 32)).dtype == torch.float32
    assert seen == {"body": torch.bfloat16}


@pytest.mark.skipif("FASTFACE_TEST_DATA" not in os.environ, reason="FASTFACE_TEST_DATA is not set: no public weights")
def test_public_weights_load_strictly() -> None:
    path = Path(os.environ["FASTFACE_TEST_DATA"]) / "weights/mobilefacenet_128d/068.ckpt"
    state = read_foreign(path)
    network = build_backbone("mobilefacenet", embedding_size=128, input_size=(96, 112)).eval()
    load_backbone_weights(network, state, path)
    own = network.state_dict()
    assert torch.equal(own["stem_depthwise.prelu.weight"], state["dw_conv1.prelu.weight"])
    assert torch.equal(own["blocks.7.depthwise.bn.running_var"], state["blocks.7.conv.4.running_var"])
    assert torch.equal(own["embedding.conv.weight"], state["linear1.conv.weight"])
    torch.manual_seed(0)
    with torch.no_grad():
        embedding = network(torch.rand(2, 3, 112, 96) * 2 - 1)
    assert embedding.shape == (2, 128)
    assert embedding.isfinite().all()
    with pytest.raises(
        ValueError, match=r"global_depthwise\.conv\.weight \(512, 1, 7, 6\) instead of \(512, 1, 7, 7\)"
    ):
        load_backbone_weights(build_backbone("mobilefacenet", embedding_size=128), state, path)
