"""RUN or FILE of task fusion -> what makes one embedding of those of several models, by its card."""

import json
from pathlib import Path

import numpy as np

from fastface.checkpoint import Checkpoint
from fastface.config import RunConfig
from fastface.fusion_card import FusionCard
from fastface.fusion_evaluation import Fuse, module_fuse
from fastface.fusion_settings import FusionTask
from fastface.metrics.scores import unit
from fastface.models.fusion import Deployed
from fastface.predictor import load_model, onnx_session, read_network
from fastface.tasks.networks import build_fusion


class Fuser:
    """Embeddings to one embedding, by the rules of the model's card.

    Args:
        network: see fastface.fusion_evaluation.Fuse.
    """

    def __init__(self, network: Fuse, card: FusionCard, origin: str) -> None:
        self.network, self.card, self.origin = network, card, origin

    def fuse(self, rows: np.ndarray) -> np.ndarray:
        """Fuse embeddings as their models gave them, those of several side by side in the order of the card.

        float32 [B, sum of sizes] -> unit float32 [B, D]. Raises ValueError for rows of another size, or a row that is
        not finite or of which a model's part is zero.
        """
        return self.network(self._checked(rows))[0]

    def fuse_set(self, rows: np.ndarray) -> np.ndarray:
        """Make one embedding of several images of a person, pooled as the card says: [n, sum of sizes] -> unit [D]."""
        if not len(rows):
            raise ValueError("a set of no images has no embedding")
        return pool(*self.network(self._checked(rows)))

    def _checked(self, rows: np.ndarray) -> np.ndarray:
        sizes = self.card.embedding_sizes
        if rows.ndim != 2 or rows.shape[1] != sum(sizes):
            raise ValueError(
                f"{self.origin} takes embeddings of {' + '.join(map(str, sizes))} values side by side, "
                f"[B, {sum(sizes)}]; got {list(rows.shape)}"
            )
        rows = rows.astype(np.float32)
        parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
        bad = ~np.logical_and.reduce([np.isfinite(part).all(1) & part.any(1) for part in parts])
        if bad.any():
            raise ValueError(f"row {int(np.argmax(bad))} has an embedding that is zero or not finite: its image failed")
        return rows


def pool(fused: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    """Pool the fused embeddings [n, D] of one person's images by the logarithm of their weights [n]: unit float32."""
    weights = np.exp(log_weights.astype(np.float64) - log_weights.max())
    return unit((weights[:, None] * fused).sum(0, keepdims=True))[0].astype(np.float32)


def load_fusion(model: str | Path, *, device: str = "cpu") -> Fuser:
    """Load a run folder (its best checkpoint, else its newest), a step folder, or an .onnx file with its card.

    Raises:
        ValueError: where there is no such model, it is of another task, or it is damaged.
    """

    def of_run(saved: Checkpoint) -> Fuser:
        network, card = fusion_of(saved)
        return Fuser(module_fuse(network, device), card, str(saved.path))

    def of_file(file: Path) -> Fuser:
        return Fuser(onnx_fuse(file), FusionCard.read(file.with_suffix(".json")), str(file))

    return load_model(model, of_run, of_file)


def fusion_of(saved: Checkpoint) -> tuple[Deployed, FusionCard]:
    """Build what ships of a checkpoint of task fusion, and its card."""
    if saved.state["card"].get("kind") != "fusion":
        raise ValueError(f"{saved.path} is of another task: what fuses embeddings is a run of task fusion")
    task = fusion_task(saved)
    card = FusionCard.of(saved.state["card"])
    network = build_fusion(task, card.embedding_sizes)
    network.load_state_dict(read_network(saved.path))
    return network.deployed(), card


def fusion_task(saved: Checkpoint) -> FusionTask:
    """Return the task's settings of a run."""
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    assert isinstance(config.task, FusionTask)
    return config.task


def onnx_fuse(path: Path) -> Fuse:
    """Run an .onnx file on the CPU."""
    session = onnx_session(path)

    def fuse(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [np.asarray(one) for one in session.run(None, {"embeddings": rows.astype(np.float32)})]
        return found[0], found[1] if len(found) == 2 else np.zeros(len(rows), np.float32)

    return fuse
