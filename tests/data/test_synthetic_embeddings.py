"""Embeddings of drawn people have the correlations they are drawn with, and stay the same where more are drawn."""

import itertools
from typing import Any

import numpy as np
import pytest

from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.synthetic.embeddings import draw_embeddings

GIVEN: dict[str, Any] = {
    "identities": 60, "samples": 8, "sizes": (40, 32), "code": 32, "noise": (0.8, 0.8), "correlation": 0.5,
    "identity_correlation": 1.0, "spread": 0.0, "quality": 0.0, "seed": 0,
}  # fmt: skip


def draw(group: str = "train", **change: Any) -> list[np.ndarray]:
    return [folder.rows for folder in draw_embeddings(group, **{**GIVEN, **change})]


def test_more_people_and_images_leave_the_first_as_they_are() -> None:
    few, many = draw(identities=3, samples=2), draw(identities=5, samples=4)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a.reshape(3, 2, -1), b.reshape(5, 4, -1)[:3, :2])
    assert not np.array_equal(draw(identities=3)[0], draw("test", identities=3)[0])
    assert not np.array_equal(draw(identities=3)[0], draw(identities=3, seed=1)[0])


def cosines(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines of genuine pairs, first and second image of each person, and of impostor pairs."""
    people = rows.reshape(GIVEN["identities"], -1, rows.shape[1]).astype(np.float64)
    people /= np.linalg.norm(people, axis=2, keepdims=True)
    genuine = [float(p[a] @ p[a + 1]) for p in people for a in range(0, len(p) - 1, 2)]
    impostor = [float(a[k] @ b[k]) for a, b in itertools.pairwise(people) for k in range(len(a))]
    return np.array(genuine), np.array(impostor)


def test_the_noise_is_what_it_is_said_to_be() -> None:
    """The cosine of a person's images is 1 / (1 + noise^2), that of two people 0."""
    for noise in (0.0, 0.8, 1.5):
        genuine, impostor = cosines(draw(noise=(noise, noise))[0])
        assert genuine.mean() == pytest.approx(1 / (1 + noise**2), abs=0.03)
        assert abs(impostor.mean()) < 0.03


@pytest.mark.parametrize(("correlation", "low", "high"), [(0.0, 0.0, 0.45), (1.0, 0.999, 1.0)])
def test_models_err_together_as_far_as_asked(correlation: float, low: float, high: float) -> None:
    a, b = (cosines(rows)[0] for rows in draw(correlation=correlation, noise=(2.0, 2.0)))
    assert low <= np.corrcoef(a, b)[0, 1] <= high


def test_who_looks_like_whom_is_common_as_far_as_asked() -> None:
    alone, common = (
        np.corrcoef(*(cosines(rows)[1] for rows in draw(identity_correlation=k, noise=(0.1, 0.1))))[0, 1]
        for k in (0, 1)
    )
    assert abs(alone) < 0.2
    assert common > 0.9


def test_it_is_an_index_like_any_other() -> None:
    index = EmbeddingIndex(draw_embeddings("val", **GIVEN))
    assert (index.sizes, len(index), index.num_classes) == ((40, 32), 480, 60)
    assert index.name(9) == "val/00001/001"
    assert index.sha256 != EmbeddingIndex(draw_embeddings("val", **{**GIVEN, "seed": 1})).sha256
    assert [made["model"]["synthetic"] for made in index.made_of] == [1, 2]
