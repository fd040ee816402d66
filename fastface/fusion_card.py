"""What a fusion of embeddings needs to be used rightly, as data, and the embeddings that a run draws for itself."""

from typing import Any, Literal

from fastface.card import RowsCard
from fastface.config import RunConfig
from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.embeddings import Embeddings
from fastface.data.index import Index
from fastface.data.synthetic import embeddings as synthetic
from fastface.fusion_settings import FusionTask, SyntheticPeople


class FusionCard(RowsCard):
    """The contents of model.json of what makes one embedding of those of several models."""

    kind: Literal["fusion"] = "fusion"
    embedding_size: int
    """Of the fused embedding, which has length 1."""
    score: Literal["cosine"] = "cosine"
    """float64 dot product of fused embeddings, rounded to float32."""
    pooling: Literal["mean", "norm", "attention"] = "mean"
    """How the images of a person become one embedding; beyond mean, the file gives the logarithm of their weights."""
    synthetic: SyntheticPeople | None = None
    """The people whose embeddings were drawn to train on; null: embeddings of images."""


def fusion_card(config: RunConfig, index: Index) -> FusionCard:
    """Return the card of a fusion of these embeddings."""
    task = config.task
    assert isinstance(task, FusionTask)
    assert isinstance(index, EmbeddingIndex)
    return FusionCard(
        embedding_sizes=index.sizes,
        embeddings=index.made_of,
        embedding_size=task.embedding_size or sum(index.sizes),
        pooling=task.pooling,
        synthetic=task.drawn,
    )


def draw_embeddings(group: str, people: SyntheticPeople) -> tuple[Embeddings, ...]:
    """Draw a group of a run's people, train, val or test: a folder's worth for each model."""
    assert people.identities is not None
    assert people.samples is not None
    numbers = {"train": people.identities, "val": people.val_identities, "test": people.test_identities}
    given: dict[str, Any] = people.model_dump(exclude={"identities", "val_identities", "test_identities"})
    return synthetic.draw_embeddings(group, identities=numbers[group], **given)
