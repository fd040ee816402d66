"""Rank-r rates and TPIR at FPIR are those of a loop over searches, ties and failures included."""

import math

import numpy as np
import pytest

from fastface.metrics.identification import Searches, cmc, det, exponent, identification
from fastface.metrics.intervals import wilson

LISTED = 6


def drawn(seed: int, mated: int = 120, non_mated: int = 90) -> Searches:
    """Draw coarse scores, so that many are equal; a tenth of the mates was not found, two searches found nobody."""
    rng = np.random.default_rng(seed)
    mate = (rng.integers(2, 20, mated) / 20).astype(np.float32)
    mate[rng.random(mated) < 0.1] = -np.inf
    best = (rng.integers(0, 16, non_mated) / 20).astype(np.float32)
    best[:2] = -np.inf
    ahead, tied = rng.integers(0, 9, mated), rng.integers(0, 3, mated)
    return Searches(mate, ahead, tied, best, np.arange(mated) // 5 * 3, np.arange(non_mated) + 7, LISTED)


def interval(hits: list[bool], persons: list[int]) -> tuple[float, float]:
    """Wilson's for the number of searches that, independent, would have the variance found between persons."""
    total, rate = len(hits), sum(hits) / len(hits)
    by_person: dict[int, float] = {}
    for hit, person in zip(hits, persons, strict=True):
        by_person[person] = by_person.get(person, 0.0) + hit - rate
    spread = sum(value * value for value in by_person.values()) / total**2
    number = min(rate * (1 - rate) / spread, total) if spread else total
    return wilson(rate * number, number)


def within(searches: Searches, i: int, rank: int, strict: bool = False) -> bool:
    before = searches.ahead[i] + (searches.tied[i] if strict else 0)
    return bool(np.isfinite(searches.mate[i]) and before + 1 <= rank)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strict", [False, True])
def test_cmc_is_the_loop(seed: int, strict: bool) -> None:
    searches = drawn(seed)
    counts = [sum(within(searches, i, r, strict) for i in range(120)) for r in range(1, LISTED + 1)]
    assert cmc(searches, strict=strict).tolist() == counts


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_loops(seed: int, rank: int) -> None:
    searches = drawn(seed)
    found = identification(searches, ranks=(1, 5, 20), targets=(0.3, 0.05), rank=rank)
    assert {key for key in found.metrics if key.startswith("rank")} == {
        "rank_1",
        "rank_1_strict",
        "rank_5",
        "rank_5_strict",
    }
    for r in (1, 5):
        hits = sum(within(searches, i, r) for i in range(120))
        assert found.metrics[f"rank_{r}"] == hits / 120
        assert found.metrics[f"rank_{r}_strict"] == sum(within(searches, i, r, True) for i in range(120)) / 120
    persons, strangers = searches.persons.tolist(), searches.strangers.tolist()
    first = interval([within(searches, i, 1) for i in range(120)], persons)
    assert found.details["ranks"][0]["interval"] == pytest.approx(first)
    for point, target in zip(found.details["tpir_at_fpir"]["points"], (0.3, 0.05), strict=True):
        t = point["threshold"]
        alarms = sum(score >= t for score in searches.non_mated.tolist())
        hits = sum(within(searches, i, rank) and searches.mate[i] >= t for i in range(120))
        assert point["errors"] == alarms <= target * 90
        assert point["fpir"] == alarms / 90
        assert point["tpir"] == hits / 120
        assert point["fnir"] == 1 - hits / 120
        found_there = [within(searches, i, rank) and bool(searches.mate[i] >= t) for i in range(120)]
        assert point["tpir_interval"] == pytest.approx(interval(found_there, persons))
        alarmed = [score >= t for score in searches.non_mated.tolist()]
        assert point["fpir_interval"] == pytest.approx(interval(alarmed, strangers))
        lower = np.nextafter(np.float32(t), np.float32(-1))
        assert sum(score >= lower for score in searches.non_mated.tolist()) > target * 90, "no smaller one would do"
        assert point["supported"] == (target * 90 >= 30)
        assert found.metrics[f"tpir_{target:.0e}".replace("e-0", "e-")] == point["tpir"]


def test_the_curve_counts_at_every_threshold() -> None:
    searches = drawn(1)
    points = det(searches, rank=2)
    for t, hits, alarms in zip(points.thresholds, points.genuine, points.impostors, strict=True):
        assert hits == sum(within(searches, i, 2) and searches.mate[i] >= t for i in range(120))
        assert alarms == sum(score >= t for score in searches.non_mated.tolist())
    assert (points.num_genuine, points.num_impostors) == (120, 90)


def test_without_non_mated_searches() -> None:
    nobody = {"non_mated": np.empty(0, np.float32), "strangers": np.empty(0, np.int64)}
    found = identification(drawn(0)._replace(**nobody))
    assert found.details["tpir_at_fpir"]["points"] == []
    assert not [key for key in found.metrics if key.startswith("tpir")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mate": np.empty(0, np.float32)}, "no mated search"),
        ({"mate": np.full(120, -np.inf, np.float32)}, "No search found its mate"),
        ({"listed": 0}, "rank 1 is not known: the lists have 0 candidates"),
    ],
)
def test_what_has_no_figures(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        identification(drawn(0)._replace(**changes))


@pytest.mark.parametrize(
    ("rate", "key"), [(1e-2, "1e-2"), (3e-3, "3e-3"), (0.1, "1e-1"), (0.25, "0.25"), (1e-10, "1e-10")]
)
def test_rates_in_keys(rate: float, key: str) -> None:
    assert exponent(rate) == key
    assert math.isclose(float(key), rate)
