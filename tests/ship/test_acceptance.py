"""Scores of two models on the same pairs -> accepted or refused, and why."""

import json

import numpy as np
import pytest

from fastface.data.image_sets import BytesImages
from fastface.evaluation import Result
from fastface.evaluators import PairSet
from fastface.metrics.folds import Pairs
from fastface.ship.acceptance import Verdict, judge


def result(scores: np.ndarray, same: np.ndarray, failed: int = 0) -> Result:
    return Result({}, {"failed_images": {"number": failed}}, scores.astype(np.float32), same)


def verdict(num: int, lost: int, *, max_drop: float = 0.01, failed: int = 0) -> Verdict:
    """Let the second model find `lost` genuine pairs less alike than any impostors, of `num` pairs of each kind."""
    same = np.arange(2 * num) % 2 == 0
    before = same + np.linspace(0, 0.1, 2 * num)
    after = before.copy()
    after[np.flatnonzero(same)[:: num // max(lost, 1)][:lost]] = -1
    ends = np.arange(2 * num)
    images = BytesImages([b""] * 4 * num)
    pairs = PairSet(images, Pairs(ends, ends + 2 * num, same, (ends % 10).astype(np.int16)), "some pairs")
    return judge(result(before, same), result(after, same, failed), pairs, max_drop=max_drop)


@pytest.mark.parametrize(("num", "lost", "accepted"), [(3000, 0, True), (3000, 30, True), (3000, 31, False)])
def test_the_bound_is_kept(num: int, lost: int, accepted: bool) -> None:
    found = verdict(num, lost)
    assert found.accepted == accepted
    assert [drop.figure for drop in found.judged] == ["accuracy", "TAR at FMR 0.01"]
    assert found.found[1].changed == (num, lost, 0)
    assert f"falls by {lost / num:.4f}" in found.report()
    if not accepted:
        assert found.reason == "TAR at FMR 0.01 falls by 0.0103 on some pairs, and 0.01 is accepted (--max-drop)"


def test_what_too_few_pairs_leave_open_is_said() -> None:
    """Of 50 impostors no rate of 0.01 can be known: it counts for want of a better one, and is marked."""
    few, many = verdict(50, 0), verdict(3000, 0)
    assert few.accepted
    assert [drop.figure for drop in few.judged] == ["accuracy", "TAR at FMR 0.01"]
    assert few.report().count("! fewer than 30 errors expected") == 1
    assert few.report().count("! not judged: fewer than 30 errors expected") == 1
    assert "! some pairs cannot exclude a fall of up to 0." in few.report()
    assert "cannot exclude" not in many.report()


def test_an_embedding_that_failed_is_refused_whatever_the_figures() -> None:
    found = verdict(3000, 0, failed=3)
    assert not found.accepted
    assert found.reason == "3 images of some pairs have a usable embedding in fp32 only"


def test_a_card_can_keep_it() -> None:
    found = json.loads(json.dumps(verdict(3000, 31).as_json()))
    assert (found["pairs"], found["max_drop"]) == ("some pairs", 0.01)
    drop = found["drops"][1]
    assert drop["changed"] == {"total": 3000, "lost": 31, "gained": 0}
    assert (drop["drop"], drop["judged"]) == (pytest.approx(31 / 3000), True)
    assert drop["interval"][0] < drop["drop"] < drop["interval"][1]
