"""A checkpoint file of timm -> the body of a timm network, strictly; only the classifier stays behind.

timm's own conversion brings older names up to date and resizes position embeddings, window tables and patches to
this network's input. Its own loading is not strict once the classifier is gone, and unpickles: so the file is read
here and handed over as tensors, under settings that keep timm strict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from fastface.models.weights import read_foreign, refuse_broken


def create_from_file(name: str, path: Path, options: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """Create timm's network `name` without classifier, filled from `path`; return it and what was left out.

    options: further keywords of timm.create_model. ValueError: a file that cannot be read, or whose tensors,
    classifier aside, are not exactly this network's.
    """
    state = read_foreign(path)
    refuse_broken(state, f" of {path}")
    classifier = _classifier_names(name)
    left_out = sorted(classifier & state.keys())
    body = {key: value for key, value in state.items() if key not in classifier}
    if not body:
        raise ValueError(f"{path} holds nothing but a classifier of {name}: {', '.join(left_out)}")
    overlay = {
        "state_dict": body,
        "num_classes": 0,  # equal to what is asked for, or timm would load whatever happens to fit
        "label_offset": 0,
        **dict.fromkeys(("source", "url", "file", "hf_hub_id", "hf_hub_filename")),  # nowhere else to load from
    }
    try:
        net: Any = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **options)
    except Exception as error:  # timm's conversions raise nearly anything on names and shapes they do not expect
        patches = ", or keep timm's patches with stem: keep" if "patch_size" in options else ""
        raise ValueError(
            f"the weights of {path} do not fit timm's {name} ({len(state)} tensors given): {_reason(error)}. "
            f"Check the network's name, and that the file is a checkpoint of timm{patches}."
        ) from error
    net.pretrained_cfg.pop("state_dict", None)  # timm keeps a second copy of the tensors here
    return net, f"{path} fills {name} but for its classifier ({', '.join(left_out) or 'the file has none'})"


def _classifier_names(name: str) -> set[str]:
    """Name what the network has only with a classifier."""
    with torch.device("meta"):
        whole, body = (timm.create_model(name, num_classes=number) for number in (1000, 0))
    return set(whole.state_dict()) - set(body.state_dict())


def _reason(error: Exception) -> str:
    """Shorten torch's list of differences to a line with the first names of each kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shortened = []
    for line in lines[1:] if len(lines) > 1 else lines:
        names = re.findall(r'"([^"]+)"', line) if "key(s)" in line else []
        if names:
            line = f"{len(names)} {line.split()[0].lower()}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        shortened.append(line.rstrip(". "))
    more = "; ..." if len(shortened) > 5 else ""
    return ("; ".join(shortened[:5]) or type(error).__name__) + more
