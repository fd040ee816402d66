"""Kind of model -> what differs between kinds while one trains: the card it gets, and how it is evaluated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel

from fastface.card import Card, MatchCard, card_of
from fastface.config import RunConfig
from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.index import Index
from fastface.eval_settings import EvalConfig
from fastface.evaluation import OpenedSets
from fastface.evaluators import Evaluators
from fastface.fusion_card import FusionCard, fusion_card
from fastface.fusion_evaluation import FusionEvaluators
from fastface.liveness_card import LivenessCard, liveness_card
from fastface.liveness_evaluation import LivenessEvaluators
from fastface.match_evaluation import MatchEvaluators
from fastface.temporal_card import TemporalCard, temporal_card
from fastface.temporal_evaluation import TemporalEvaluators


class Kind(NamedTuple):
    """A row of the table; a card's contents are as a checkpoint's state keeps them."""

    card: Callable[[RunConfig, Index], BaseModel]
    """The card of a run that begins."""
    evaluators: Callable[[EvalConfig, Any, torch.device], OpenedSets[Any]]
    """Opens the evaluation sets, for the contents of the run's card."""


def _match_card(config: RunConfig, index: Index) -> MatchCard:
    assert isinstance(index, EmbeddingIndex)
    return MatchCard(embedding_sizes=index.sizes, embeddings=index.made_of)


KINDS: dict[str, Kind] = {
    "recognition": Kind(
        lambda config, index: card_of(config, index.meta.get("options", {})),
        lambda config, card, device: Evaluators(config, Card.model_validate(card), device),
    ),
    "match": Kind(
        _match_card,
        lambda config, card, device: MatchEvaluators(config, MatchCard.model_validate(card).embedding_sizes, device),
    ),
    "fusion": Kind(
        fusion_card,
        lambda config, card, device: FusionEvaluators(config, FusionCard.of(card), device),
    ),
    "liveness": Kind(
        liveness_card,
        lambda config, card, device: LivenessEvaluators(config, LivenessCard.model_validate(card), device),
    ),
    "temporal": Kind(
        temporal_card,
        lambda config, card, device: TemporalEvaluators(config, TemporalCard.model_validate(card), device),
    ),
}
"""By `kind` of the task's section and of the card."""


def build_evaluators(config: EvalConfig, card: dict[str, Any], device: torch.device) -> OpenedSets[Any]:
    """Open the evaluation sets of a run for what its card says it trains.

    Raises:
        ValueError: where one is missing or not for this kind of model.
    """
    return KINDS[card.get("kind", "recognition")].evaluators(config, card, device)
