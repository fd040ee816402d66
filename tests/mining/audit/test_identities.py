"""Mean cosines, thresholds and doubtful labels are those of loops over all pairs of images."""

import itertools
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from fastface.data.embeddings import Embeddings, open_embeddings, write_embeddings
from fastface.mining.audit.identities import (
    alike_images,
    clusters,
    compare_images,
    match,
    mislabelled,
    nearest_identity,
    resembling,
    same_person,
    search_over,
    shared_people,
)
from fastface.mining.audit.scores import (
    Drawn,
    Space,
    Thresholds,
    choose_thresholds,
    draw_scores,
    mean_direction,
    tail_threshold,
)

WIDTH = 24
LIMITS = Thresholds(same=0.7, likely=0.6, typical=0.5, own=0.3, alike=0.97)


def embed(folder: Path, people: list[int], labels: list[int], noise: float = 0.5, seed: int = 0) -> Embeddings:
    """Rows around the directions of people, under labels; of uneven lengths and with a mean in common."""
    drawn = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(99).normal(size=(WIDTH, WIDTH)))[0]
    spread = drawn.normal(size=(len(people), WIDTH)) / WIDTH**0.5
    rows = directions[people] + noise * spread
    rows *= drawn.uniform(0.5, 9, size=(len(people), 1))
    num = max(labels) + 1
    names = [f"{label}/{i}.jpg" for i, label in enumerate(labels)]
    write_embeddings(folder, rows, np.array(labels), names, [f"id{c}" for c in range(num)], {"dataset_id": "x"})
    return open_embeddings(folder)


def with_rows(e: Embeddings, rows: np.ndarray) -> Embeddings:
    return Embeddings(e.path, rows, e.labels, e.names, e.classes, e.meta)


def cosines(space: Space) -> np.ndarray:
    rows = np.asarray(space.rows, np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if space.mean is not None:
        rows = rows - space.mean
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


@pytest.mark.parametrize("centred", [False, True])
def test_images_are_compared_with_every_identity(tmp_path: Path, centred: bool) -> None:
    drawn = np.random.default_rng(1)
    labels = [*drawn.integers(0, 9, 60).tolist(), 9, 11]  # 9 and 11 have one image, 10 none
    embeddings = embed(tmp_path, drawn.integers(0, 9, 62).tolist(), labels)
    space = Space(embeddings, mean_direction(embeddings) if centred else None)
    found = compare_images(space, space.sums(), search_over(space.sums(), gpu=False))
    scores = cosines(space)
    for i, label in enumerate(labels):
        others = {c: [scores[i, k] for k in range(62) if labels[k] == c and k != i] for c in range(12)}
        own = others.pop(label)
        assert found.own[i] == pytest.approx(np.mean(own), abs=2e-5) if own else np.isnan(found.own[i])
        best = max(np.mean(values) for values in others.values() if values)
        assert found.other[i] == pytest.approx(best, abs=2e-5)
        assert np.mean(others[int(found.who[i])]) == pytest.approx(best, abs=2e-5)


def test_rows_without_direction_take_no_part(tmp_path: Path) -> None:
    embeddings = embed(tmp_path, [0, 0, 0, 1, 1], [0, 0, 0, 1, 1])
    rows = np.array(embeddings.rows)
    rows[1], rows[4] = np.nan, 0
    space = Space(with_rows(embeddings, rows))
    found = compare_images(space, space.sums(), search_over(space.sums(), gpu=False))
    assert np.isnan(found.own).tolist() == [False, True, False, True, True]
    assert np.isnan(found.other).tolist() == [False, True, False, False, True]
    assert space.of(0).tolist() == [0, 2]
    assert np.isfinite(space.sums()).all()


def test_one_person_under_two_names(tmp_path: Path) -> None:
    people = [0] * 4 + [0] * 3 + [1] * 5 + [2] * 4
    embeddings = embed(tmp_path, people, [0] * 4 + [1] * 3 + [2] * 5 + [3] * 4)
    space = Space(embeddings)
    sums = space.sums()
    search = search_over(sums, gpu=False)
    found = same_person(space, sums, search, compare_images(space, sums, search), LIMITS)
    assert [(m.first, m.second) for m in found] == [(0, 1)]
    scores = cosines(space)[:4, 4:7]
    assert found[0].score == pytest.approx(scores.mean(), abs=1e-5)
    assert found[0].best == pytest.approx(scores.max(), abs=1e-5)
    assert (found[0].above, found[0].pairs) == (int((scores >= 0.7).sum()), 12)
    assert found[0].sure(found[0].score)
    assert found[0]._replace(above=6).sure(1.0)
    assert not found[0]._replace(above=5).sure(1.0)
    assert not found[0]._replace(above=1, pairs=1).sure(1.0)
    other = match(space, space, sums, sums, 0, 2, 0.7)
    assert other.score == pytest.approx(cosines(space)[:4, 7:12].mean(), abs=1e-5)


def test_images_of_another_person(tmp_path: Path) -> None:
    """Records 3 and 9 are of person 1 and 0; of two images the one that resembles somebody is named."""
    people = [0, 0, 0, 1, 0, 1, 1, 1, 1, 0, 2, 1]
    labels = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    space = Space(embed(tmp_path, people, labels, noise=0.4))
    sums = space.sums()
    compared = compare_images(space, sums, search_over(sums, gpu=False))
    found = mislabelled(compared, 0.3, 0.45)
    assert {(odd.record, odd.who) for odd in found} == {(3, 1), (9, 0), (11, 1)}
    assert found == sorted(found, key=lambda odd: odd.own - odd.other)
    tenth = sorted(compared.other)[-2] * 0.9 + sorted(compared.other)[-3] * 0.1  # of 12, the 9.9th
    assert resembling(compared, LIMITS._replace(likely=0.9)) == pytest.approx(tenth, abs=1e-6)
    assert resembling(compared, LIMITS._replace(likely=0.1)) == 0.1


def test_split_identities_and_loners(tmp_path: Path) -> None:
    people = [0] * 5 + [1] * 3 + [2] * 6 + [3] + [4, 5, 6]
    labels = [0] * 8 + [1] * 7 + [2] * 3
    space = Space(embed(tmp_path, people, labels, noise=0.4))
    sums = space.sums()
    splits, loners = clusters(space, compare_images(space, sums, search_over(sums, gpu=False)), LIMITS)
    assert [split.identity for split in splits] == [0]
    assert [group.tolist() for group in splits[0].groups] == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert splits[0].between == pytest.approx(cosines(space)[:5, 5:8].mean(), abs=1e-5)
    assert [odd.record for odd in loners] == [14]  # identity 2 is all doubt: nobody says who is right


def test_nearly_equal_embeddings(tmp_path: Path) -> None:
    embeddings = embed(tmp_path, [0, 0, 0, 1, 1, 2], [0, 0, 1, 2, 2, 3])
    rows = np.array(embeddings.rows)
    rows[1], rows[2] = rows[0] * 2, rows[0] * 0.5
    space = Space(with_rows(embeddings, rows))
    sums = space.sums()
    compared = compare_images(space, sums, search_over(sums, gpu=False))
    found = alike_images(space, compared, LIMITS)
    assert [(a, b) for a, b, _ in found] == [(0, 1), (0, 2), (1, 2)]


def test_people_of_two_sets(tmp_path: Path) -> None:
    here = Space(embed(tmp_path / "a", [0] * 3 + [1] * 3 + [2] * 2, [0] * 3 + [1] * 3 + [2] * 2))
    there = Space(embed(tmp_path / "b", [5] * 2 + [1] * 2 + [2] * 4, [0] * 2 + [1] * 2 + [2] * 4, seed=3))
    sums = here.sums(), there.sums()
    search = search_over(sums[0], gpu=False)
    found = shared_people(here, there, sums, search, LIMITS)
    assert {(m.first, m.second) for m in found} == {(1, 1), (2, 2)}
    assert nearest_identity(sums[1], search).tolist()[1:] == [1, 2]


def test_drawn_pairs_are_of_one_label_or_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [0, 0, 0, 1, 1, 2]
    space = Space(embed(tmp_path, [0, 1, 2, 3, 4, 5], labels))
    scores = cosines(space)
    genuine = {round(float(scores[a, b]), 4) for a, b in itertools.combinations(range(6), 2) if labels[a] == labels[b]}
    impostor = {round(float(scores[a, b]), 4) for a, b in itertools.permutations(range(6), 2) if labels[a] != labels[b]}
    drawn = draw_scores(space)
    assert {round(float(v), 4) for v in drawn.genuine} == genuine
    assert len(drawn.genuine) == 4
    assert {round(float(v), 4) for v in drawn.impostor} == impostor
    monkeypatch.setattr("fastface.mining.audit.scores.OF_ONE", 2)
    assert len(draw_scores(space).genuine) == 3


@pytest.mark.parametrize("comparisons", [1e2, 1e4, 1e6, 1e8])
def test_the_tail_of_a_normal_distribution_is_found(comparisons: float) -> None:
    drawn = np.random.default_rng(0).normal(0.05, 0.1, 400_000)
    expected = NormalDist(0.05, 0.1).inv_cdf(1 - 1 / comparisons)
    assert tail_threshold(drawn, comparisons) == pytest.approx(expected, abs=0.012)
    spoilt = np.concatenate([drawn, np.full(100, 0.9)])  # pairs of one person under two names
    assert tail_threshold(spoilt, comparisons) == pytest.approx(expected, abs=0.03)
    assert tail_threshold(drawn + 0.9, 1e12) == 1.0
    assert tail_threshold(drawn[:0], 10) == 1.0


def test_thresholds_follow_from_the_scores() -> None:
    drawn = np.random.default_rng(0)
    genuine, impostor = drawn.normal(0.7, 0.1, 20_000), drawn.normal(0, 0.08, 400_000)
    found, ways = choose_thresholds(Drawn(genuine, impostor), 1_000, {"alike": 0.99})
    assert found.typical == pytest.approx(np.sort(genuine)[5_000], abs=1e-3)
    assert found.same == found.likely == found.typical  # people are far apart
    assert found.own == pytest.approx(np.sort(genuine)[1_000], abs=1e-3)
    assert (found.alike, ways["alike"]) == (0.99, "given")
    close, _ = choose_thresholds(Drawn(genuine - 0.4, impostor), 1_000, {})
    assert close.same == pytest.approx(tail_threshold(impostor, 499_500))
    assert close.likely == pytest.approx(tail_threshold(impostor, 4_995))
    assert close.own == pytest.approx(np.sort(impostor)[396_000], abs=1e-3)
    few, _ = choose_thresholds(Drawn(genuine - 0.4, impostor), 20, {})
    assert few.likely == few.same
    with pytest.raises(ValueError, match="give --same, --likely, --typical, --own, --alike"):
        choose_thresholds(Drawn(genuine[:0], impostor), 20, {"same": 0.5})
