"""Weights files of other programs -> dict of tensors -> a backbone of ours, strictly.

Files come from strangers: pickles are read with torch's weights_only unpickler and nothing else, sizes are
bounded before memory is taken, and a file that does not fit says what differs.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastface.models.neck import Backbone

MAX_BYTES = 4 << 30  # iresnet200 in float32 is 0.48 GB, ViT-L 1.2 GB, either with optimizer state three times that
MAX_TENSORS = 100_000
# Keys under which training programs store the network in a checkpoint, tried in this order.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "net_state_dict",
    "state_dict_backbone",
    "model",
    "backbone",
    "net",
)
# What public files hold beyond the network, per network: left out by name, and said in the network's notes.
LEFT_OUT: dict[str, str] = {
    "inception_resnet_v1": r"logits\.(weight|bias)",  # facenet-pytorch's classifier of its training identities
}
# Prefixes that wrappers of modules leave on every name: DataParallel, torch.compile, LightningModule.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
# Public names -> ours, per network; first column matches a whole name. MobileFaceNet: the naming of the
# PyTorch versions with conv1, dw_conv1, blocks.N.conv.0-7, conv2, linear7, linear1.
_UNIT = {0: "conv", 1: "bn", 2: "prelu"}
RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "mobilefacenet": (
        (r"dw_conv1\.(.+)", r"stem_depthwise.\1"),
        (r"conv1\.(.+)", r"stem.\1"),
        (r"conv2\.(.+)", r"last.\1"),
        (r"linear7\.(.+)", r"global_depthwise.\1"),
        (r"linear1\.(.+)", r"embedding.\1"),
        *(
            (rf"blocks\.(\d+)\.conv\.{3 * unit + part}\.(.+)", rf"blocks.\1.{name}.{layer}.\2")
            for unit, name in enumerate(("expand", "depthwise", "project"))
            for part, layer in _UNIT.items()
        ),
    ),
}


def read_foreign(path: str | Path, *, key: str | None = None, max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """Read the tensors of a .pt, .pth, .ckpt or .safetensors file, by name, on the CPU.

    A checkpoint that wraps the network ({"epoch": ..., "state_dict": ...}) is unwrapped by the usual keys;
    `key` names another one. Prefixes such as "module." are removed when every name has them. No code in the
    file is run. ValueError: unreadable or oversized file, Python objects inside, no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give a .pt, .pth, .ckpt or .safetensors file")
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path} has {size} bytes, more than the {max_bytes} allowed for a weights file")
    loaded = _load_safetensors(path) if _is_safetensors(path) else _load_pickle(path, max_bytes)
    tensors = _checked(_unwrap(loaded, key, path), path, max_bytes)
    return _strip_prefixes(tensors)


def load_backbone_weights(backbone: Backbone, state: Mapping[str, Tensor], source: str | Path | None = None) -> None:
    """Copy `state` into `backbone`; every tensor must be there, with its shape, and none may be left over.

    Names of public implementations are translated where RENAMES knows them; counters that old BatchNorm files
    lack (num_batches_tracked) start at 0; what LEFT_OUT names is left out and goes to backbone.notes. `source`
    names the file in messages. ValueError lists the first five missing, unexpected and differently shaped
    tensors, and refuses NaN and infinity.
    """
    origin = f" of {source}" if source else ""
    own = backbone.state_dict()
    left_out = [name for name in state if re.fullmatch(LEFT_OUT.get(backbone.name, ""), name)]
    given = _renamed(backbone.name, {name: value for name, value in state.items() if name not in left_out}, own)
    for name, value in own.items():
        if name.endswith("num_batches_tracked") and name not in given:
            given[name] = torch.zeros_like(value)
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        (width, height), size = backbone.input_size, backbone.embedding_size
        raise ValueError(
            f"the weights{origin} do not fit {backbone.name} "
            f"(embedding_size {size}, input {width}x{height}): "
            f"{_first(missing, 'missing')}; {_first(unexpected, 'unexpected')}; "
            f"{_first(shapes, 'of another shape')}. "
            "Check the network's name, embedding_size and input_size."
        )
    refuse_broken(given, origin)
    backbone.load_state_dict(given, strict=True)
    if left_out:
        backbone.notes.append(f"the weights{origin} hold more than {backbone.name}: {', '.join(left_out)} left out")


def refuse_broken(state: Mapping[str, Tensor], origin: str) -> None:
    """Raise ValueError where a tensor holds NaN or infinity; `origin` says of what, as " of w.pth"."""
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"the weights{origin} hold {_first(broken, 'tensors with NaN or infinity')}")


def _is_safetensors(path: Path) -> bool:
    """A safetensors file opens with the length of its JSON header, then the header: a brace as byte 8."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and not start.startswith(b"PK")


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is a damaged safetensors file: {error}") from error


def _load_pickle(path: Path, max_bytes: int) -> Any:
    """Load with weights_only=True; there is no second try without it."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
                script = any(entry.filename.endswith("/constants.pkl") for entry in archive.infolist())
            if script:
                raise ValueError("it is a TorchScript program")
            if unpacked > max_bytes:
                raise ValueError(f"unpacks to {unpacked} bytes, more than the {max_bytes} allowed")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise nearly anything: EOFError, KeyError, struct.error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        refused = re.search(r"GLOBAL (\S+)", str(error))
        detail = f"it holds Python objects ({refused.group(1)})" if refused else reason
        raise ValueError(
            f"{path} cannot be read as plain tensors: {detail}. Files are never unpickled without "
            "restriction; where you trust it, load it yourself and save model.state_dict() with torch.save."
        ) from error


def _unwrap(loaded: Any, key: str | None, path: Path) -> dict[str, Any]:
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds a {type(loaded).__name__} instead of named tensors")
    if key is not None:
        if not isinstance(loaded.get(key), Mapping):
            raise ValueError(f"{path} has no tensors under {key!r}; it has: {', '.join(map(str, list(loaded)[:20]))}")
        return dict(loaded[key])
    if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
        return dict(loaded)
    for wrapper in WRAPPERS:
        if isinstance(loaded.get(wrapper), Mapping):
            return _unwrap(loaded[wrapper], None, path)
    keys = ", ".join(map(str, list(loaded)[:20])) or "nothing"
    raise ValueError(f"{path} holds no named tensors under {', '.join(WRAPPERS)}; it has: {keys}. Name one as `key`.")


def _checked(tensors: dict[str, Any], path: Path, max_bytes: int) -> dict[str, Tensor]:
    if not tensors or len(tensors) > MAX_TENSORS:
        raise ValueError(f"{path} holds {len(tensors)} tensors; between 1 and {MAX_TENSORS} are accepted")
    total = 0
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path}: {name!r} is a {type(value).__name__}; only named tensors are accepted")
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise ValueError(f"{path}: {name} is sparse, quantised or without data; only plain tensors are accepted")
        total += value.numel() * value.element_size()  # a view may claim more than the file holds
    if total > max_bytes:
        raise ValueError(f"{path}: its tensors need {total} bytes, more than the {max_bytes} allowed")
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:  # twice: compiled inside DataParallel, or the reverse
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _renamed(network: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate public names to ours; names that are ours already stay."""
    renamed = {}
    for name, value in state.items():
        target = name
        if name not in own:
            for pattern, replacement in RENAMES.get(network, ()):
                if match := re.fullmatch(pattern, name):
                    target = match.expand(replacement)
                    break
        renamed[target] = value
    return renamed


def _first(names: list[str], what: str) -> str:
    more = ", ..." if len(names) > 5 else ""
    return f"{len(names)} {what}{': ' if names else ''}{', '.join(names[:5])}{more}"
