"""Galleries are drawn by rule, and every search finds what a loop over all enrolled identities finds."""

import numpy as np
import pytest

from fastface.mining.gallery import Split, Template, draw_gallery, mean_of, search_distractors, search_gallery
from fastface.mining.search import Kind

LABELS = np.repeat(np.arange(40), [1, 2, 3, 4, 6, 1, 2, 5] * 5)


def faces(labels: np.ndarray, width: int = 8, seed: int = 0) -> np.ndarray:
    """Rows around a centre each, of any length; rows 3 and 40 failed, and rows 10 and 11 are one image."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(int(labels.max()) + 1, width))[labels] + 0.7 * rng.normal(size=(len(labels), width)) + 0.4
    rows = (rows * rng.uniform(0.5, 9, (len(labels), 1))).astype(np.float32)
    rows[3], rows[40, 0], rows[11] = 0, np.nan, rows[10]
    return rows


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Score as defined: float64 product of unit embeddings, rounded to float32; -inf for a failure."""
    wide = [row.astype(np.float64) for row in (a, b)]
    if not all(np.isfinite(row).all() and row.any() for row in wide):
        return float("-inf")
    return float(np.float32(wide[0] / np.linalg.norm(wide[0]) @ (wide[1] / np.linalg.norm(wide[1]))))


def less_mean(rows: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    good = [row.astype(np.float64) for row in gallery if np.isfinite(row).all() and row.any()]
    out = (rows - sum(good) / len(good)).astype(np.float32)
    out[[not (np.isfinite(row).all() and row.any()) for row in rows]] = np.nan
    return out


@pytest.mark.parametrize("images", [1, 2, 4])
@pytest.mark.parametrize("unenrolled", [None, 0.0, 0.5])
def test_a_gallery_is_drawn_by_rule(images: int, unenrolled: float | None) -> None:
    split = draw_gallery(LABELS, images=images, unenrolled=unenrolled, seed=3)
    together = np.concatenate(split)
    assert sorted(together.tolist()) == list(range(len(LABELS))), "every image has one part"
    enrolled, counts = np.unique(LABELS[split.gallery], return_counts=True)
    assert (counts == images).all()
    assert set(LABELS[split.mated].tolist()) == set(enrolled.tolist())
    assert not set(LABELS[split.non_mated].tolist()) & set(enrolled.tolist())
    can = {c for c in range(40) if (LABELS == c).sum() > images}
    assert len(enrolled) == len(can) - int((unenrolled or 0) * len(can))
    assert set(enrolled.tolist()) <= can
    again = draw_gallery(LABELS, images=images, unenrolled=unenrolled, seed=3)
    other = draw_gallery(LABELS, images=images, unenrolled=unenrolled, seed=4)
    assert all((a == b).all() for a, b in zip(split, again, strict=True))
    assert split.gallery.tolist() != other.gallery.tolist()


def test_a_fifth_is_kept_out_where_all_have_enough() -> None:
    labels = np.repeat(np.arange(20), 3)
    assert len(draw_gallery(labels).gallery) == 16
    assert len(draw_gallery(labels, unenrolled=0.0).non_mated) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "--gallery-images is 0"),
        ({"images": 6}, "no identity has 7 images, 6 to enrol and one to search for"),
        ({"unenrolled": 1.0}, "--unenrolled is 1.0"),
    ],
)
def test_galleries_that_cannot_be_drawn(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_gallery(LABELS, **options)


def slow_templates(rows: np.ndarray, split: Split, template: Template) -> dict[int, list[np.ndarray]]:
    """List what each enrolled identity is compared by."""
    found: dict[int, list[np.ndarray]] = {}
    for i in split.gallery.tolist():
        found.setdefault(int(LABELS[i]), []).append(rows[i])
    if template == "mean":
        for identity, images in found.items():
            good = [row.astype(np.float64) for row in images if np.isfinite(row).all() and row.any()]
            total = sum((row / np.linalg.norm(row) for row in good), np.zeros(rows.shape[1]))
            found[identity] = [total.astype(np.float32)]
    return found


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize(("images", "template"), [(1, "max"), (2, "max"), (3, "max"), (2, "mean")])
def test_a_search_finds_what_a_loop_finds(images: int, template: Template, centre: bool) -> None:
    rows, listed = faces(LABELS), 7
    split = draw_gallery(LABELS, images=images, seed=1)
    found = search_gallery(rows, LABELS, split, template=template, listed=listed, centre=centre, gpu=False)
    plain = less_mean(rows, rows[split.gallery]) if centre else rows
    templates = slow_templates(plain, split, template)
    assert (found.enrolled, found.recall) == (len(templates), 1.0)
    seen = 0
    for place, i in enumerate(split.mated.tolist()):
        scores = {who: max(cosine(plain[i], row) for row in images) for who, images in templates.items()}
        own = scores.pop(int(LABELS[i]))
        ahead = sum(score > own for score in scores.values())
        tied = sum(score == own for score in scores.values())
        if np.isneginf(own):
            assert np.isneginf(found.searches.mate[place])
        elif ahead < listed:
            seen += 1
            assert found.searches.mate[place] == pytest.approx(own, abs=6e-8)
            assert (found.searches.ahead[place], found.searches.tied[place]) == (ahead, tied)
        else:
            assert np.isneginf(found.searches.mate[place]) or found.searches.ahead[place] >= listed
    assert seen > 20
    assert found.searches.persons.tolist() == LABELS[split.mated].tolist()
    assert found.searches.strangers.tolist() == LABELS[split.non_mated].tolist()
    for place, i in enumerate(split.non_mated.tolist()):
        best = max(max(cosine(plain[i], row) for row in images) for images in templates.values())
        assert found.searches.non_mated[place] == pytest.approx(best, abs=6e-8)


@pytest.mark.parametrize("centre", [False, True])
def test_distractors_with_one_image_put_in(centre: bool) -> None:
    labels = np.repeat(np.arange(12), [1, 2, 3, 4] * 3)
    rows = faces(np.concatenate([labels, np.repeat(np.arange(12, 60), 1)]), seed=2)
    rows, distractors = rows[: len(labels)], rows[len(labels) :]
    distractors[5], distractors[6] = rows[1], rows[2]  # as alike as images are: ties with mates do occur
    plain, others = rows, distractors
    if centre:
        plain, others = less_mean(rows, distractors), less_mean(distractors, distractors)
    found = search_distractors(rows, labels, distractors, listed=9, centre=centre, gpu=False)
    expected, best, persons, strangers = [], [], [], []
    for who in range(12):
        members = np.flatnonzero(labels == who).tolist()
        for i in members if len(members) > 1 else []:
            scores = [cosine(plain[i], row) for row in others]
            best.append(max(scores))
            strangers.append(who)
            for j in members:
                own = cosine(plain[i], plain[j])
                if j != i:
                    persons.append(who)
                    expected.append((own, sum(s > own for s in scores), sum(s == own for s in scores)))
    searches = found.searches
    np.testing.assert_allclose(searches.mate, [own for own, _, _ in expected], atol=6e-8)
    np.testing.assert_allclose(searches.non_mated, best, atol=6e-8)
    assert len(expected) == 3 * (2 + 6 + 12)
    assert (searches.persons.tolist(), searches.strangers.tolist()) == (persons, strangers)
    known = [(a, t) for _, a, t in expected]
    for place, (ahead, tied) in enumerate(known):
        if np.isfinite(searches.mate[place]) and ahead < 9:
            assert (searches.ahead[place], searches.tied[place]) == (ahead, tied)
        elif np.isfinite(searches.mate[place]):
            assert searches.ahead[place] >= 9
    assert any(t for _, t in known), "one mate is as like as a distractor"
    assert found.enrolled == len(distractors) + 1


def test_an_approximate_index_says_what_it_finds() -> None:
    labels = np.repeat(np.arange(600), 2)
    rows = faces(labels, width=16)
    split = draw_gallery(labels, unenrolled=0.1)
    exact = search_gallery(rows, labels, split, gpu=False)
    kinds: tuple[Kind, ...] = ("ivf", "hnsw", "pq")
    for kind in kinds:
        found = search_gallery(rows, labels, split, kind=kind, gpu=False)
        assert 0.3 < found.recall <= 1
        # What an index finds is scored as exactly: a mate is never nearer or farther, only found or not.
        both = np.isfinite(found.searches.mate) & np.isfinite(exact.searches.mate)
        np.testing.assert_array_equal(found.searches.mate[both], exact.searches.mate[both])
        assert both.sum() > 0.3 * len(both)


def test_nothing_to_enrol() -> None:
    with pytest.raises(ValueError, match="none of the embeddings to enrol has a direction"):
        mean_of(np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="no identity of the probes has 2 images"):
        search_distractors(faces(np.arange(60)), np.arange(60), faces(np.arange(60)), gpu=False)
