"""Draws -> inputs and nodes of a DALI graph: the same operators, on the CPU or on the GPU, with no random state."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastface.data.augment.draw import Draws
from fastface.data.augment.operator import Graph


def graph_inputs(draws: Draws, height: int, width: int) -> dict[str, np.ndarray]:
    """Return what a graph of these operators is fed for images of this size: name -> [B, ...].

    Names are "number:argument", with "chosen" (bool [B]) among the arguments.
    """
    inputs = {}
    for number, (operator, chosen, parameters) in enumerate(draws.operators):
        for name, values in {"chosen": chosen, **operator.feeds(parameters, height, width)}.items():
            inputs[f"{number}:{name}"] = values
    return inputs


def augmented(images: Any, draws: Draws, inputs: dict[str, np.ndarray], graph: Graph) -> Any:
    """Return the node of the augmented images; only rows that were drawn go through an operator.

    To be called in a function that DALI turns into a graph with conditionals: it rewrites the `if` below.
    """
    types = graph.types
    kinds = {"f": types.FLOAT, "i": types.INT32, "b": types.BOOL}
    for number, drawn in enumerate(draws.operators):
        feeds = {}
        for name, values in inputs.items():
            owner, argument = name.split(":")
            if int(owner) == number:
                kind, ndim = kinds[values.dtype.kind], values.ndim - 1
                feeds[argument] = graph.fn.external_source(name=name, dtype=kind, ndim=ndim, batch=True)
        chosen = feeds.pop("chosen")
        if chosen:
            images = drawn.operator.dali(graph, images, feeds)
    return images
