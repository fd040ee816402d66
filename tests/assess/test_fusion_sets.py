"""Sets of images are drawn apart, paired with their mates and with strangers, and pooled as loops do."""

from pathlib import Path

import numpy as np
import pytest

from fastface.assess.fusion_sets import draw_sets, log_lengths, pairs_of_sets
from fastface.data.embedding_index import EmbeddingIndex
from tests.embedded import write_rows


def test_sets_of_a_person_share_no_image() -> None:
    label = np.array([0, 0, 0, 0, 0, 1, 2, 2, 3, 3, 3])
    usable = np.ones(11, bool)
    usable[8] = False
    sets = draw_sets(label, usable, 2, 0)
    assert [len(records) for records in sets] == [2, 2, 1, 1, 1, 1]
    for a, b in zip(sets[0::2], sets[1::2], strict=True):
        assert not set(a.tolist()) & set(b.tolist())
        assert len({label[record] for record in (*a, *b)}) == 1
        assert 8 not in (*a, *b)
    assert label[[records[0] for records in sets]].tolist() == [0, 0, 2, 2, 3, 3]


def test_each_set_meets_its_mate_once_and_no_stranger_twice() -> None:
    label = np.repeat(np.arange(30), 2)
    pairs = pairs_of_sets(label, 0)
    listed = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len(listed) == len(set(listed)) == 30 + 300
    for (a, b), same in zip(listed, pairs.same, strict=True):
        assert same == (label[a] == label[b])
        assert a != b
    assert pairs.same.sum() == 30
    assert pairs.fold is not None
    assert len(pairs_of_sets(label[:6], 0).same) == 3 + 6  # of three people each has two strangers


def test_lengths_are_the_geometric_mean_of_the_models(tmp_path: Path) -> None:
    folders = [write_rows(tmp_path / "a", people=2, images=2), write_rows(tmp_path / "b", people=2, images=2, size=5)]
    index = EmbeddingIndex(folders)
    for record, found in enumerate(log_lengths(index)):
        each = [np.linalg.norm(np.load(folder / "embeddings.npy")[record].astype(float)) for folder in folders]
        assert np.exp(found) == pytest.approx((each[0] * each[1]) ** 0.5)


@pytest.mark.parametrize(
    ("label", "images", "message"), [([0, 0, 1], 1, "fewer than two"), ([0, 0, 1, 1], 0, "at least one")]
)
def test_what_cannot_be_is_refused(label: list[int], images: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_sets(np.array(label), np.ones(len(label), bool), images, 0)
