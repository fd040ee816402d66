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


def resized(images: Any, encoded: Any, graph: Graph) -> Any:
    """Return the node of images cut and resized to the graph's size, as Pillow's BILINEAR does it: see `resample`.

    DALI repeats the outermost pixel, Pillow leaves out what lies outside and weighs up the rest. So a black
    margin is laid around the image, which adds nothing, and the result divided by what white would have given,
    row by row and column by column.
    """
    fn, types, math = graph.fn, graph.types, graph.math
    shape = fn.cast(fn.peek_image_shape(encoded), dtype=types.FLOAT)
    height, width, aspect = shape[0], shape[1], graph.width / graph.height
    y = _Axis(graph, height, math.min(height, width / aspect), graph.height)
    x = _Axis(graph, width, math.min(width, height * aspect), graph.width)
    one = height / height
    single = _Axis(graph, one, one, 1)
    share_y = _resized(graph, _white(graph, height, one), y, single)
    share_x = _resized(graph, _white(graph, one, width), single, x)
    shares = share_y * share_x if graph.device == "cpu" else share_y.gpu() * share_x.gpu()
    return fn.reshape(fn.cast(_resized(graph, images, y, x) / shares, dtype=types.UINT8), layout="HWC")


class _Axis:
    """One axis of a part that is resized: nodes of its margin, of its length with margins, of start and end."""

    def __init__(self, graph: Graph, length: Any, kept: Any, new: int) -> None:
        self.new = new
        self.margin = graph.math.ceil(graph.math.max(kept / new, 1.0)) + 1.0 if new > 1 else length * 0.0
        self.length = length + self.margin * 2.0
        self.start = self.margin + (length - kept) / 2.0
        self.end = self.start + kept


def _white(graph: Graph, height: Any, width: Any) -> Any:
    fn, types = graph.fn, graph.types
    shape = fn.cast(fn.stack(height, width, height / height), dtype=types.INT32)
    return fn.reshape(fn.ones(shape=shape, dtype=types.FLOAT), layout="HWC")


def _resized(graph: Graph, images: Any, y: _Axis, x: _Axis) -> Any:
    fn = graph.fn
    places, lengths = fn.stack(-y.margin, -x.margin), fn.stack(y.length, x.length)
    laid = fn.slice(images, places, lengths, axes=[0, 1], out_of_bounds_policy="pad", **_PIXELS)
    part = {"roi_start": fn.stack(y.start, x.start), "roi_end": fn.stack(y.end, x.end)}
    return fn.resize(laid, size=[y.new, x.new], antialias=True, dtype=graph.types.FLOAT, **part)


_PIXELS = {"normalized_anchor": False, "normalized_shape": False}
