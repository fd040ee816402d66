"""RUN or FILE -> an embedder that carries its card."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from fastface import checkpoint
from fastface.card import Card
from fastface.config import RunConfig
from fastface.data.normalisation import PerColour, as_float32
from fastface.models import build_backbone
from fastface.tasks.base import Windowed
from fastface.tasks.networks import network_size


class Embedder:
    """Images to embeddings, by the rules of the model's card.

    Args:
        network: normalised float32 [B, 3, H, W] -> float32 [B, D], as arrays.
        card: says size, normalisation and what happens with the mirrored image.
    """

    def __init__(self, network: Callable[[np.ndarray], np.ndarray], card: Card, origin: str) -> None:
        self.network = network
        self.card = card
        self.origin = origin

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Embed uint8 RGB images [B, H, W, 3] -> float32 [B, D], not L2-normalised."""
        planar = prepared(images, self.card, self.origin)
        straight = self.network(planar)
        if self.card.flip == "none":
            return straight
        mirrored = self.network(np.ascontiguousarray(planar[..., ::-1]))
        return straight + mirrored if self.card.flip == "sum" else np.concatenate([straight, mirrored], axis=1)

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Turn uint8 RGB images [B, H, W, 3] into what the network takes: normalised float32 [B, 3, H, W]."""
        return prepared(images, self.card, self.origin)


class TakesImages(Protocol):
    """What a card says of the images that its network takes."""

    @property
    def input_size(self) -> tuple[int, int]: ...
    @property
    def mean(self) -> PerColour: ...
    @property
    def std(self) -> PerColour: ...


def prepared(images: np.ndarray, card: TakesImages, origin: str) -> np.ndarray:
    """Turn uint8 RGB images [B, H, W, 3] into what a network takes: normalised float32 [B, 3, H, W].

    Raises:
        ValueError: for images of another size than the card's.
    """
    width, height = card.input_size
    if images.shape[1:] != (height, width, 3):
        raise ValueError(
            f"{origin} takes {width}x{height} RGB images, got {images.shape[2]}x{images.shape[1]}; "
            f"convert them with make_shards.py --size {width}x{height}"
        )
    # The loader's arithmetic, to the bit: float32, (pixel - mean) times the rounded 1 / std.
    planar = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32)
    mean, inverse_std = as_float32(card.mean, card.std)
    return (planar - mean[:, None, None]) * inverse_std[:, None, None]


def load_embedder(model: str | Path, *, device: str | torch.device = "cpu", threads: int | None = None) -> Embedder:
    """Load a run folder (its best checkpoint, else its newest), a step folder, or an .onnx file with its card.

    threads: that an .onnx file is run by; default: all cores.

    Raises:
        ValueError: where there is no such model, or it is damaged.
    """

    def of_run(saved: checkpoint.Checkpoint) -> Embedder:
        card = Card.of(saved.state["card"], str(saved.path))
        return module_embedder(load_network(saved), card, device, origin=str(saved.path))

    return load_model(model, of_run, lambda file: open_onnx(file, Card.beside(file), threads))


Loaded = TypeVar("Loaded")


def load_model(
    model: str | Path, of_run: Callable[[checkpoint.Checkpoint], Loaded], of_file: Callable[[Path], Loaded]
) -> Loaded:
    """Load a model of any kind: a run folder (its best checkpoint, else its newest), a step folder, or an .onnx file.

    Raises:
        ValueError: where there is no such model, or it is damaged; and what of_run and of_file raise.
    """
    path = Path(model)
    if path.suffix != ".onnx":
        return of_run(find_checkpoint(path))
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    return of_file(path)


def load_network(saved: checkpoint.Checkpoint, *, trained: bool = True) -> nn.Module:
    """Build a checkpoint's network with its weights, or as it was before training, by the run's seed."""
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    torch.manual_seed(config.seed)
    backbone = build_backbone(
        config.model.backbone,
        embedding_size=config.model.embedding_size,
        input_size=network_size(config.data, config.model),
        dropout=config.model.dropout,
        stem=config.model.stem,
    )
    if trained:
        backbone.load_state_dict(read_network(saved.path))
    return Windowed(backbone, config.model.window).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def module_embedder(module: nn.Module, card: Card, device: str | torch.device, *, origin: str) -> Embedder:
    """Wrap a network as an Embedder; it is put into evaluation mode for each call, and back."""
    return Embedder(module_function(module, device), card, origin)


def module_function(
    module: nn.Module, device: str | torch.device, *, images_each: int = 1
) -> Callable[[np.ndarray], np.ndarray]:
    """Wrap a network for arrays, float32 [B, 3, H, W] -> [B, D]; in evaluation mode for each call, and back.

    images_each: frames of what it takes, where that is clips, float32 [B, T, 3, H, W].
    """
    module = module.to(device)
    dtype = next(module.parameters()).dtype
    # A CPU's caches hold the activations of 32 images, not of 128: 83 against 37 images/s (mobilefacenet, one
    # core, channels_last; 51 and 25 without it).
    chunk = max(32 // images_each, 1) if torch.device(device).type == "cpu" else 1 << 20
    layout = torch.channels_last if images_each == 1 else torch.contiguous_format

    def network(images: np.ndarray) -> np.ndarray:
        training = module.training
        module.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(images).to(device, dtype, memory_format=layout).split(chunk)
            found = torch.cat([module(part).float() for part in parts]).cpu().numpy()
        module.train(training)
        return found

    return network


def find_checkpoint(path: Path) -> checkpoint.Checkpoint:
    """Find and verify the checkpoint a RUN or step folder stands for: a run's best, else its newest.

    Its tensors stay in their files: who ships a network does not want its head and optimizer, see `read_network`.

    Raises:
        ValueError: naming what was looked for.
    """
    if (path / checkpoint.MANIFEST).is_file():
        return checkpoint.load(path, tensors=False)
    if not (path / "checkpoints").is_dir():
        raise ValueError(f"{path} is neither a run folder, a step folder of one, nor an .onnx file")
    best = path / "best.json"
    if best.is_file():
        chosen = path / "checkpoints" / checkpoint.step_folder(json.loads(best.read_text(encoding="utf-8"))["step"])
        if chosen.is_dir():
            return checkpoint.load(chosen, tensors=False)
    try:
        return checkpoint.newest(path / "checkpoints", tensors=False)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None


def run_folder_of(model: Path) -> Path:
    """Return where results about a model belong: its run folder, or the folder of its .onnx file."""
    if model.suffix == ".onnx":
        return model.parent
    return model if (model / "checkpoints").is_dir() else model.parent.parent


class Start(NamedTuple):
    """Where a network's first weights come from."""

    origin: str
    normalisation: tuple[PerColour, PerColour] | None
    """Mean and std of the pixels they were trained on; None where nothing says so."""
    names: list[str]
    """The tensors of the backbone that they fill."""


def load_backbone_from(path: Path, task: nn.Module) -> Start:
    """Start a task's backbone from a RUN, a step folder or a .safetensors file.

    A classifier starts anew where the file has none, or one of other classes.
    """
    origin, normalisation, classes = str(path), None, None
    if path.suffix != ".safetensors":
        saved = find_checkpoint(path)
        path, origin, card = saved.path, str(saved.path), saved.state["card"]
        normalisation, classes = _normalisation_of(card), card.get("classes")
    backbone: Any = task.backbone
    tensors = backbone.adapted(read_network(path), classes)
    new = {name: value for name, value in backbone.state_dict().items() if name.startswith(backbone.may_be_new)}
    try:
        backbone.load_state_dict(new | tensors)
    except RuntimeError as error:
        raise ValueError(f"model.weights {path} does not fit model.backbone: {error}") from None
    return Start(origin, normalisation, sorted(tensors))


def _normalisation_of(card: dict[str, Any]) -> tuple[PerColour, PerColour] | None:
    """Return mean and std of a card of any kind as a checkpoint keeps it; None where it has none."""
    if "mean" not in card:
        return None
    mean, std = (tuple(card[key]) if isinstance(card[key], list) else card[key] for key in ("mean", "std"))
    return mean, std


def read_network(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of the network that a step folder ships, or of a .safetensors file, and no others.

    Where a run keeps an average of its weights, that is what ships.
    """
    if path.is_dir():
        average = path / "average.safetensors"
        path = average if average.is_file() else path / "model.safetensors"
    elif not path.is_file():
        raise ValueError(f"no such file: {path}")
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            inside = [name for name in names if name.startswith("backbone.")]
            return {name.removeprefix("backbone."): file.get_tensor(name) for name in inside or names}
    except SafetensorError as error:
        raise ValueError(f"{path} is a damaged safetensors file: {error}") from None


PRECISION = "fastface.precision"
"""The key under which an .onnx file's metadata says its precision."""


def open_onnx(path: Path, card: Card, threads: int | None = None) -> Embedder:
    """Run an .onnx file by its card on the CPU, in so many threads; None: one for each core.

    Raises:
        ValueError: where onnxruntime cannot read the file, or the card is that of another precision.
    """
    return Embedder(onnx_function(path, card.precision, threads), card, str(path))


def onnx_function(path: Path, stated: str, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Wrap an .onnx file of one input for arrays, as `open_onnx`; stated: the precision that its card speaks of."""
    session = onnx_session(path, threads)
    precision = session.get_modelmeta().custom_metadata_map.get(PRECISION, stated)
    if precision != stated:
        raise ValueError(
            f"{path} is {precision}, and the card beside it speaks of {stated}: its own, "
            f"{path.with_suffix('.json').name}, is missing or was overwritten"
        )
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def onnx_session(path: Path, threads: int | None = None) -> Any:
    """Open an .onnx file on the CPU; ValueError where onnxruntime cannot read it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0  # 0: onnxruntime's choice, one for each core
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class but this
        raise ValueError(f"{path} is not an ONNX file that onnxruntime reads: {str(error).strip()}") from None
