"""Network -> an .onnx file that onnxruntime computes fast, and what such a file says of itself."""

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from fastface.card import Precision
from fastface.predictor import PRECISION

OPSET = 20
"""Of every file: 8-bit weights with a scale per channel need 13, and onnxruntime reads 20 since 1.17."""


def write_graph(
    network: nn.Module, examples: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str], path: Path
) -> None:
    """Export a network as one file, its weights inside; the first axis of its inputs is the batch, 1 or longer."""
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's remarks about its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network.eval(),
            tuple(examples),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in examples),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)


def spell_out_prelu(path: Path) -> None:
    """Replace each PRelu of a float32 file by max(x, 0) + slope * min(x, 0), which gives the same bits.

    onnxruntime 1.32 computes its own PRelu on a CPU value by value: more than half of MobileFaceNet's time, against a
    tenth for the four nodes.
    """
    model = onnx.load(path)
    graph, nodes = model.graph, []
    for node in graph.node:
        if node.op_type != "PRelu":
            nodes.append(node)
            continue
        (x, slope), (y,) = node.input, node.output
        above, below, scaled = (f"{y}_{part}" for part in ("above", "below", "scaled"))
        nodes += [
            helper.make_node("Relu", [x], [above], name=f"{node.name}_above"),
            helper.make_node("Min", [x, "zero"], [below], name=f"{node.name}_below"),
            helper.make_node("Mul", [below, slope], [scaled], name=f"{node.name}_scaled"),
            helper.make_node("Add", [above, scaled], [y], name=f"{node.name}_sum"),
        ]
    if len(nodes) > len(graph.node):
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
        del graph.node[:]
        graph.node.extend(nodes)
        onnx.save(model, path)


def seal(path: Path, precision: Precision) -> None:
    """Write its precision into a file's metadata, so that a card of another file is found out.

    What torch's exporter noted at each node goes: stack traces, with the folders of the machine that exported.
    """
    model = onnx.load(path)
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
    helper.set_model_props(model, {PRECISION: precision})
    onnx.save(model, path)


def opset_of(path: Path) -> int:
    """Return the version of ONNX's own operators that a file uses."""
    sets = onnx.load(path, load_external_data=False).opset_import
    return next(entry.version for entry in sets if entry.domain in ("", "ai.onnx"))
