import numpy as np
import pytest

from fastface.metrics.attack_comparison import compare_attacks, format_comparisons
from fastface.metrics.attack_groups import by_groups, by_values, format_groups, parse_groups
from fastface.metrics.attack_picture import Judged
from fastface.metrics.attacks import presented_figures
from fastface.metrics.presentations import Presentations, gather_presentations


def presented(seed: int = 0, gain: float = 2.0, num: int = 300) -> tuple[Presentations, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    live = rng.random(num) < 0.5
    attack = np.where(live, "none", rng.choice(["print", "replay", "mask"], num))
    person = rng.integers(0, 25, num)
    scores = np.random.default_rng(1).normal(gain * live).astype(np.float32)
    return gather_presentations(scores, live, attack, None, person), attack, live


def test_groups_pool_their_attacks() -> None:
    made, attack, _ = presented()
    found = by_groups(made, parse_groups(["flat=print,replay", "solid=mask"]), 1.0)
    accepted = made.scores >= 1.0
    for part, names in zip(found, (("print", "replay"), ("mask",)), strict=True):
        chosen = [a in names for a in attack.tolist()]
        assert len(part["rates"]) == 1
        assert part["rates"][0]["presentations"] == sum(chosen)
        assert part["rates"][0]["errors"] == sum(a and c for a, c in zip(accepted.tolist(), chosen, strict=True))
    assert "APCER print, replay" in format_groups("by group", found)


def test_parts_have_the_threshold_of_all() -> None:
    made, attack, live = presented()
    source = np.where(np.arange(300) % 3 == 0, "a", "b")
    found = by_values(made, source, 0.5)
    assert [part["value"] for part in found] == ["a", "b"]
    for part in found:
        for group in part["rates"]:
            kind = live if group["name"] == "bona fide" else attack == group["name"]
            chosen = kind & (source == part["value"])
            wrong = (made.scores >= 0.5) != live
            assert (group["presentations"], group["errors"]) == (int(chosen.sum()), int((wrong & chosen).sum()))
    only = by_values(made, np.where(live, "live", "spoof"), 0.5)
    assert [len(part["rates"]) for part in only] == [1, 3]  # a part may have one kind only


@pytest.mark.parametrize("text", ["2d", "2d=", "=print", "2d=,"])
def test_what_is_no_group(text: str) -> None:
    with pytest.raises(ValueError, match="takes NAME=ATTACK"):
        parse_groups([text])


def test_groups_that_contradict() -> None:
    with pytest.raises(ValueError, match="'print' is in two groups"):
        parse_groups(["a=print", "b=print"])
    with pytest.raises(ValueError, match="no attack 'prnt', perhaps you meant 'print'"):
        by_groups(presented()[0], {"a": ["prnt"]}, 0.5)


def test_a_better_model_is_better_beyond_chance_and_an_equal_one_is_not() -> None:
    made = {name: presented(gain=gain)[0] for name, gain in (("good", 4.0), ("bad", 1.0))}
    judged = {name: Judged(one, presented_figures(one, None, draw=True)) for name, one in made.items()}
    found = compare_attacks(judged["good"], judged["bad"])
    for name in ("acer", "hter", "eer", "bpcer20"):
        figure = found["figures"][name]
        expected = judged["good"].figures.metrics[name] - judged["bad"].figures.metrics[name]
        assert figure["difference"] == pytest.approx(expected)
        assert figure["interval"][0] <= figure["difference"] <= figure["interval"][1]
    assert found["figures"]["auc"]["significant"]
    same = compare_attacks(judged["good"], judged["good"])
    assert not any(figure["significant"] for figure in same["figures"].values())
    assert all(figure["interval"] == [0.0, 0.0] for figure in same["figures"].values())
    assert "bad" in format_comparisons("good", {"bad": found})
