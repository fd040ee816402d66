"""Batches of embeddings are the plan's rows, from any step, for any number of processes."""

from pathlib import Path

import numpy as np
import pytest

from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.embedding_loader import EmbeddingLoader
from fastface.data.plans import Pairs
from tests.embedded import write_rows


@pytest.fixture
def index(tmp_path: Path) -> EmbeddingIndex:
    return EmbeddingIndex([write_rows(tmp_path, people=6, images=4, failed=(2,))])


@pytest.mark.parametrize(("micro", "world"), [(8, 1), (4, 1), (2, 2), (4, 2)])
def test_batches_are_the_plans_rows(index: EmbeddingIndex, micro: int, world: int) -> None:
    plan = Pairs(index, 0.5, 8, 3)
    for start, stop in ((0, 5), (7, 9)):
        found: dict[int, list[np.ndarray]] = {}
        for rank in range(world):
            with EmbeddingLoader(index, plan, micro_batch=micro, rank=rank, world=world, ahead=2) as loader:
                kept = list(loader.batches(start, stop))
                assert [(b.step, b.micro) for b in kept] == [
                    (step, n) for step in range(start, stop) for n in range(8 // micro // world)
                ]
                for batch in kept:
                    np.testing.assert_array_equal(batch.embeddings.numpy(), index.read(batch.records))
                    np.testing.assert_array_equal(batch.labels.numpy(), index.labels_of(batch.records))
                    found.setdefault(batch.step, []).append(batch.records)
                assert loader.timings.images == sum(len(b.records) for b in kept)
                assert loader.damage.news() == []
        for step, parts in found.items():
            np.testing.assert_array_equal(np.concatenate(parts), plan[step].records)


def test_a_pair_is_not_parted(index: EmbeddingIndex) -> None:
    with pytest.raises(ValueError, match="take a multiple of 2"):
        EmbeddingLoader(index, Pairs(index, 0.5, 6, 0), micro_batch=3)
