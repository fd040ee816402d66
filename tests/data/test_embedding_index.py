"""Folders of embeddings are drawn from as shard sets are, failed rows left out and counted."""

from pathlib import Path

import numpy as np
import pytest

from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.embeddings import open_embeddings, write_embeddings
from fastface.data.plans import Pairs, PerIdentity, Shuffled, Weighted, build_plan
from fastface.plan_settings import ClipsPlan, WindowedPlan
from tests.embedded import write_rows


def test_failed_rows_are_no_records(tmp_path: Path) -> None:
    index = EmbeddingIndex([write_rows(tmp_path, people=3, images=4, failed=(0, 5, 6))])
    rows = open_embeddings(tmp_path).rows
    there = [n for n in range(12) if n not in (0, 5, 6)]
    assert (len(index), index.left_out, index.num_classes) == (9, 3, 3)
    assert "3 of 12 rows left out" in index.notes[0]
    np.testing.assert_array_equal(index.read(np.array([0, 3, 8])), rows[[there[0], there[3], there[8]]])
    assert index.labels_of(np.arange(9)).tolist() == [n // 4 for n in there]
    assert [index.name(n) for n in (0, 8)] == ["p000/1.jpg", "p002/3.jpg"]
    for label in range(3):
        own = index.by_label[index.label_start[label] : index.label_start[label + 1]]
        assert own.tolist() == [k for k, n in enumerate(there) if n // 4 == label]
    np.testing.assert_allclose(index.mean(), rows[there].astype(np.float64).mean(0))


def test_failed_rows_stay_where_they_count(tmp_path: Path) -> None:
    index = EmbeddingIndex([write_rows(tmp_path, people=2, images=2, failed=(1,))], failed_too=True)
    assert (len(index), index.left_out, index.notes) == (4, 0, [])
    assert np.isnan(index.read(np.array([1]))).all()


def test_names_are_found(tmp_path: Path) -> None:
    index = EmbeddingIndex([write_rows(tmp_path, people=2, images=2, failed=(1,))])
    assert index.find(["p001/1.jpg", "p000/0.jpg"]).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"1 of 2 names have no embedding, the first is 'p000/1\.jpg'"):
        index.find(["p000/0.jpg", "p000/1.jpg"])


def test_several_models_stand_side_by_side(tmp_path: Path) -> None:
    a = write_rows(tmp_path / "a", people=2, images=3, failed=(1,))
    b = write_rows(tmp_path / "b", people=2, images=3, size=5, noisy=1, model="b", failed=(4,))
    index = EmbeddingIndex([a, b])
    assert (index.sizes, len(index), index.left_out) == ((8, 5), 4, 2)
    both = np.concatenate([open_embeddings(a).rows, open_embeddings(b).rows], axis=1)
    np.testing.assert_array_equal(index.read(np.arange(4)), both[[0, 2, 3, 5]])
    assert index.sha256 != EmbeddingIndex([b, a]).sha256 != EmbeddingIndex([a]).sha256
    assert [made["model"] for made in index.made_of] == [{"sha256": "a"}, {"sha256": "b"}]


def test_other_images_are_refused(tmp_path: Path) -> None:
    paths = [write_rows(tmp_path / str(n), people=2, images=2, seed=n, first_person=4 * n) for n in (0, 1)]
    with pytest.raises(ValueError, match="are not of the same images"):
        EmbeddingIndex(paths)


def renamed(folder: Path, order: list[int], dataset_id: str, **change: str) -> Path:
    """Write a folder's rows in another order, as those of another shard set, with some images called otherwise."""
    there = open_embeddings(folder)
    names = [change.get(there.names[n], there.names[n]) for n in order]
    about = {"dataset_id": dataset_id, "model": {"sha256": "other"}}
    out = folder.with_name(f"{folder.name}-{dataset_id}")
    write_embeddings(out, there.rows[order] * 2, there.labels[order], names, there.classes, about)
    return out


def test_sets_made_of_the_same_images_are_joined_by_name(tmp_path: Path) -> None:
    """Models of different input have shard sets of their own, in which other images may have been rejected."""
    a = write_rows(tmp_path / "a", people=3, images=2, failed=(4,))
    order = [5, 0, 2, 4, 3]  # image 1 is not there
    b = renamed(a, order, "sized otherwise")
    index = EmbeddingIndex([a, b])
    rows = open_embeddings(a).rows
    assert (len(index), index.left_out) == (4, 2)
    for record, row in enumerate((0, 2, 3, 5)):
        np.testing.assert_array_equal(index.read(np.array([record]))[0], np.concatenate([rows[row], rows[row] * 2]))
        assert index.name(record) == f"p{row // 2:03d}/{row % 2}.jpg"
        assert index.label[record] == row // 2
    assert "or lack in one of the folders" in index.notes[0]
    assert "put together by the images' names" in index.notes[1]
    assert len(EmbeddingIndex([a, b], failed_too=True)) == 5


def test_names_that_show_other_people_are_refused(tmp_path: Path) -> None:
    a = write_rows(tmp_path / "a", people=3, images=2)
    swapped = {"p000/0.jpg": "p001/0.jpg", "p001/0.jpg": "p000/0.jpg"}
    other = renamed(a, [*range(6)], "swapped", **swapped)
    with pytest.raises(ValueError, match="whose names tell which is which"):
        EmbeddingIndex([a, other])
    twice = renamed(a, [*range(6)], "twice", **{"p000/0.jpg": "p000/1.jpg"})
    with pytest.raises(ValueError, match="are not of the same images"):
        EmbeddingIndex([a, twice])


def test_nothing_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no row that is finite and not zero"):
        EmbeddingIndex([write_rows(tmp_path, people=1, images=2, failed=(0, 1))])


def test_plans_draw_from_it(tmp_path: Path) -> None:
    index = EmbeddingIndex([write_rows(tmp_path, people=5, images=4, failed=(3,))])
    for plan in (
        Pairs(index, 0.5, 8, 0),
        PerIdentity(index, 2, 8, 0),
        Weighted(index, "label", 8, 0),
        Shuffled(index.num_samples, 8, 0),
    ):
        records = np.concatenate([plan[step].records for step in range(20)])
        assert set(records.tolist()) <= set(range(19))
        assert len(set(records.tolist())) > 15
    labels = index.labels_of(Pairs(index, 0.5, 8, 0)[3].records)
    assert (labels[0::2] == labels[1::2]).sum() == 2


def test_plans_of_shards_are_refused(tmp_path: Path) -> None:
    index = EmbeddingIndex([write_rows(tmp_path, people=5, images=4)])
    with pytest.raises(ValueError, match="windowed goes from shard to shard"):
        build_plan(WindowedPlan(), index, 4, 0)
    with pytest.raises(ValueError, match="clip"):
        build_plan(ClipsPlan(frames=2), index, 4, 0)
