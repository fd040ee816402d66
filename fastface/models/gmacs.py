"""Network -> billions of multiply-adds for one image, counted layer by layer, and a line that describes it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fastface.models.neck import Backbone


def describe(backbone: Backbone) -> str:
    """Say in a line what a network costs at its input_size, followed by its notes.

    Works on shapes alone: the weights are neither copied nor used, wherever they are.
    """
    shapes: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in backbone.parameters()}
    shapes |= {id(buffer): buffer.to("meta") for buffer in backbone.buffers()}
    gmacs = count_gmacs(copy.deepcopy(backbone, shapes), backbone.input_size)
    millions = sum(p.numel() for p in backbone.parameters()) / 1e6
    width, height = backbone.input_size
    line = f"{backbone.name}: {millions:.1f} M parameters, {gmacs:.2f} GMACs at {width}x{height}"
    return "; ".join([line, *backbone.notes])


def count_gmacs(network: nn.Module, input_size: tuple[int, int] = (112, 112)) -> float:
    """Count the multiply-adds of convolutions and linear layers for one image of (width, height) px, in 1e9.

    Normalisation, activations and the two products inside attention are not counted, as is usual in face
    papers. Works on the meta device, where networks of any size cost no memory.
    """
    total = 0

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        if isinstance(layer, nn.Linear):
            total += output.numel() * weight.shape[1]
        else:  # an output value sums over (inputs / groups) x kernel: the weight's dimensions but the first
            total += output.numel() * weight[0].numel()

    counted = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, counted)]
    training = network.training
    first = next(network.parameters())
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, input_size[1], input_size[0], device=first.device, dtype=first.dtype))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return total / 1e9
