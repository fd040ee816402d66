import json

import numpy as np
import pytest

from fastface.metrics.attributes import Sides
from fastface.metrics.breakdown import breakdown, format_breakdown, gini
from fastface.metrics.dependence import rate_interval


def pairs_of_groups(num: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Sides, np.ndarray]:
    """Draw pairs of persons in groups a, b and (rare) c; of whom a is hardest."""
    rng = np.random.default_rng(seed)
    group = np.array(["a", "b"] * 20 + ["c"])
    persons = rng.integers(0, len(group), (2, num))
    persons[1, ::2] = persons[0, ::2]
    same = persons[0] == persons[1]
    sides = Sides(group[persons[0]], group[persons[1]])
    scores = rng.normal(size=num) + same * (1.5 + 0.5 * (sides.first == "b"))
    scores[:5] = np.nan
    return scores, same, sides, persons


def test_each_cell_is_counted() -> None:
    scores, same, sides, persons = pairs_of_groups()
    found = breakdown(scores, same, sides, 1.0, persons=persons)
    assert [cell["group"] for cell in found["groups"]] == ["a", "b", "c"]
    assert [cell["groups"] for cell in found["across"]] == [["a", "b"], ["a", "c"], ["b", "c"]]
    for cell in (*found["groups"], *found["across"]):
        names = sorted(cell.get("groups", [cell.get("group")] * 2))
        here = [p for p in range(len(same)) if sorted([sides.first[p], sides.second[p]]) == names]
        genuine, impostors = [p for p in here if same[p]], [p for p in here if not same[p]]
        missed = sum(not scores[p] >= 1.0 for p in genuine)
        matched = sum(scores[p] >= 1.0 for p in impostors)
        assert (cell["genuine"], cell["fnmr_errors"]) == (len(genuine), missed)
        assert (cell["impostors"], cell["fmr_errors"]) == (len(impostors), matched)
        assert cell["failed"] == sum(p < 5 for p in here)
        assert cell["fnmr"] == (missed / len(genuine) if genuine else None)
        assert cell["fmr"] == (matched / len(impostors) if impostors else None)
        assert cell["fmr_supported"] is bool(matched >= 30)
        if impostors:
            wrong = np.array([scores[p] >= 1.0 for p in impostors])
            expected = rate_interval(wrong, same[impostors], persons[:, impostors])
            assert cell["fmr_interval"] == [expected.low, expected.high]
    assert found["all"]["genuine"] == same.sum()
    json.dumps(found, allow_nan=False)


def test_the_summary_leaves_out_groups_with_few_errors() -> None:
    scores, same, sides, _ = pairs_of_groups()
    found = breakdown(scores, same, sides, 1.0)
    a, b = (cell["fnmr"] for cell in found["groups"][:2])
    fnmr = found["summary"]["fnmr"]
    assert (fnmr["highest"], fnmr["lowest"], fnmr["left_out"]) == ("a", "b", ["c"])
    assert fnmr["ratio"] == a / b
    assert fnmr["gini"] == pytest.approx((a - b) / (a + b))
    assert found["summary"]["garbe"] == pytest.approx((fnmr["gini"] + found["summary"]["fmr"]["gini"]) / 2)
    text = format_breakdown("sex", {"rule": "FMR at most 0.1", **found})
    assert "T = 1.0000 (FMR at most 0.1)" in text
    assert f"FNMR: a / b = {a / b:.2f}" in text
    assert "left out: c" in text
    row = next(line for line in text.splitlines() if line.startswith("c "))
    assert "! " in row


def test_groups_without_errors_are_not_compared() -> None:
    scores, same, sides, _ = pairs_of_groups(60)
    found = breakdown(scores, same, sides, 1.0)
    assert found["summary"]["fmr"]["ratio"] is None
    assert found["summary"]["garbe"] is None
    assert "are not compared" in format_breakdown("sex", {"rule": "", **found})


@pytest.mark.parametrize(("rates", "expected"), [([0.1, 0.1, 0.1], 0.0), ([0.0, 0.0, 0.6], 1.0), ([0.0, 0.0], 0.0)])
def test_gini_goes_from_equal_to_all_in_one(rates: list[float], expected: float) -> None:
    assert gini(np.array(rates)) == pytest.approx(expected)
