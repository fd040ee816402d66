"""RUN or FILE of task match -> what compares embeddings, by its card."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.card import MatchCard
from fastface.checkpoint import Checkpoint
from fastface.config import RunConfig
from fastface.match_evaluation import Score, module_score
from fastface.models.matcher import Comparator
from fastface.predictor import load_model, onnx_session, read_network
from fastface.task_settings import MatchTask
from fastface.tasks.networks import build_matcher


class LoadedMatcher(NamedTuple):
    """What compares embeddings, by the rules of its card."""

    score: Score
    card: MatchCard
    origin: str


def load_matcher(model: str | Path, *, device: str = "cpu") -> LoadedMatcher:
    """Load a run folder (its best checkpoint, else its newest), a step folder, or an .onnx file with its card.

    Raises:
        ValueError: where there is no such model, it is of another task, or it is damaged.
    """

    def of_run(saved: Checkpoint) -> LoadedMatcher:
        network, card = comparator_of(saved)
        return LoadedMatcher(module_score(network, device), card, str(saved.path))

    def of_file(file: Path) -> LoadedMatcher:
        return LoadedMatcher(onnx_score(file), MatchCard.read(file.with_suffix(".json")), str(file))

    return load_model(model, of_run, of_file)


def comparator_of(saved: Checkpoint) -> tuple[Comparator, MatchCard]:
    """Build what ships of a checkpoint of task match, and its card."""
    if saved.state["card"].get("kind") != "match":
        raise ValueError(f"{saved.path} embeds images: what compares embeddings is a run of task match")
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    assert isinstance(config.task, MatchTask)
    card = MatchCard.model_validate(saved.state["card"])
    matcher = build_matcher(config.task, card.embedding_sizes)
    matcher.load_state_dict(read_network(saved.path))
    return Comparator(matcher), card


def onnx_score(path: Path) -> Score:
    """Run an .onnx file on the CPU."""
    session = onnx_session(path)

    def score(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        inputs = {"first": first.astype(np.float32), "second": second.astype(np.float32)}
        return np.asarray(session.run(None, inputs)[0])

    return score
