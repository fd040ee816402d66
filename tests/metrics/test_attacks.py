import math

import numpy as np
import pytest

from fastface.metrics.attacks import attack_figures, presented_figures, rates_by_species, threshold_at
from fastface.metrics.presentations import Presentations, gather_presentations
from fastface.metrics.verification import metric_direction

KEYS = ("acer", "apcer", "bpcer", "auc", "eer", "hter", "acc", "bpcer10", "bpcer20", "bpcer100")


def drawn(seed: int, num: int = 90, failures: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draw scores with ties, live flags and attacks of three species, one of them rare."""
    rng = np.random.default_rng(seed)
    live = rng.random(num) < 0.4
    scores = np.round(rng.normal(live * 0.8, 1.0), 1).astype(np.float32)
    scores[rng.choice(num, failures, replace=False)] = np.nan
    attack = np.where(live, "none", rng.choice(["print", "replay", "mask"], num, p=[0.5, 0.4, 0.1]))
    return scores, live, attack.tolist()


def slow(scores: np.ndarray, live: np.ndarray, attack: list[str], threshold: float | None) -> dict[str, float]:
    """Recompute every figure by loops over Python floats."""
    s = [float(x) for x in scores]

    def rates(t: float) -> tuple[float, dict[str, float], float]:
        refused = [not x >= t for x, one in zip(s, live, strict=True) if one]
        by: dict[str, list[bool]] = {}
        for x, one, name in zip(s, live, attack, strict=True):
            if not one:
                by.setdefault(name, []).append(x >= t)
        every = [got for one in by.values() for got in one]
        return sum(refused) / len(refused), {k: sum(v) / len(v) for k, v in by.items()}, sum(every) / len(every)

    known = sorted({x for x in s if not math.isnan(x)}, reverse=True)
    steps = [known[0] + 1, *known]
    gaps = [(abs(rates(t)[0] - rates(t)[2]), k) for k, t in enumerate(steps)]
    best = steps[min(gaps, key=lambda gap: (round(gap[0], 12), gap[1]))[1]]
    t = best if threshold is None else threshold
    bpcer, by, far = rates(t)
    lives = [x for x, one in zip(s, live, strict=True) if one]
    others = [x for x, one in zip(s, live, strict=True) if not one]
    low = [-math.inf if math.isnan(x) else x for x in lives]
    rest = [-math.inf if math.isnan(x) else x for x in others]
    found = {
        "acer": (max(by.values()) + bpcer) / 2,
        "apcer": max(by.values()),
        "bpcer": bpcer,
        "auc": sum((a > b) + 0.5 * (a == b) for a in low for b in rest) / len(low) / len(rest),
        "eer": (rates(best)[0] + rates(best)[2]) / 2,
        "hter": (far + bpcer) / 2,
        "acc": (len(lives) * (1 - bpcer) + len(others) * (1 - far)) / len(s),
    }
    for name, target in (("bpcer10", 0.1), ("bpcer20", 0.05), ("bpcer100", 0.01)):
        found[name] = min(rates(x)[0] for x in steps if max(rates(x)[1].values()) <= target + 1e-12)
    return found


@pytest.mark.parametrize("threshold", [None, 0.5, -9.0, 9.0])
@pytest.mark.parametrize("failures", [0, 7])
@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_the_loops(seed: int, failures: int, threshold: float | None) -> None:
    scores, live, attack = drawn(seed, failures=failures)
    found = attack_figures(scores, live, attack, None, threshold).metrics
    assert tuple(found) == KEYS
    assert found == pytest.approx(slow(scores, live, attack, threshold), abs=1e-12)


def test_by_hand() -> None:
    """Four live, four prints, two masks at threshold 0.5: one live refused, one print and one mask accepted."""
    scores = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.2, 0.1, 0.75, 0.4])
    live = np.array([True] * 4 + [False] * 6)
    attack = ["none"] * 4 + ["print"] * 4 + ["mask"] * 2
    found = attack_figures(scores, live, attack, threshold=0.5)
    expected = {"bpcer": 0.25, "apcer": 0.5, "acer": 0.375, "hter": (2 / 6 + 0.25) / 2, "acc": 0.7, "bpcer10": 0.5}
    assert {key: found.metrics[key] for key in expected} == pytest.approx(expected)
    assert found.details["worst_species"] == "mask"
    assert [(g["name"], g["errors"], g["presentations"]) for g in found.details["species"]] == [
        ("mask", 1, 2),
        ("print", 1, 4),
    ]


def test_accepts_at_equality() -> None:
    found = attack_figures(np.array([0.5, 0.5], np.float32), np.array([True, False]), threshold=0.5).metrics
    assert (found["bpcer"], found["apcer"]) == (0.0, 1.0)


def test_who_gives_no_answer_is_not_accepted() -> None:
    scores = np.array([0.9, np.nan, 0.8, np.nan, np.inf, 0.1])
    live = np.array([True, True, True, False, False, False])
    found = attack_figures(scores, live, threshold=0.5)
    assert found.metrics["bpcer"] == pytest.approx(1 / 3)
    assert found.metrics["apcer"] == 0.0
    assert found.details["bona_fide"]["non_response_rate"] == pytest.approx(1 / 3)
    assert found.details["species"][0]["non_responses"] == 2  # infinity is no answer either


def test_frames_of_a_clip_are_averaged() -> None:
    scores = np.array([0.9, 0.2, np.nan, 0.6, 0.2, 0.1, np.nan], np.float32)
    live = np.array([True, True, True, True, False, False, False])
    clip = np.array([3, 3, 3, -1, 7, 7, 9])
    made = gather_presentations(scores, live, None, clip)
    by_row = {int(row): float(score) for row, score in zip(made.rows, made.scores, strict=True)}
    assert by_row == pytest.approx({0: 0.55, 3: 0.6, 4: 0.15, 6: -math.inf})
    assert made.scores.dtype == np.float32
    assert attack_figures(scores, live, None, clip, 0.5).details["num_presentations"] == 4


def test_order_of_rows_means_nothing() -> None:
    scores, live, attack = drawn(3, failures=4)
    clip, person = np.arange(90) // 90 - 1, np.random.default_rng(0).integers(-1, 8, 90)
    order = np.random.default_rng(1).permutation(90)
    there = attack_figures(scores, live, attack, clip, person=person)
    moved = attack_figures(scores[order], live[order], [attack[k] for k in order], clip[order], person=person[order])
    assert there.metrics == moved.metrics
    assert there.details["species"] == moved.details["species"]


def test_threshold_rules_against_loops() -> None:
    for seed in range(5):
        scores, live, attack = drawn(seed, failures=3)
        made = gather_presentations(scores, live, attack)
        assert threshold_at(made, "eer") == presented_figures(made, None).details["threshold"]
        steps = np.unique(scores[np.isfinite(scores)])
        for target in (0.02, 0.1, 0.3):
            t = threshold_at(made, f"apcer={target}")
            below = [x for x in steps if x < t]
            assert presented_figures(made, t).metrics["apcer"] <= target
            assert not below or presented_figures(made, float(below[-1])).metrics["apcer"] > target
        t = threshold_at(made, "bpcer=0.2")
        higher = [x for x in steps if x > t]
        assert presented_figures(made, t).metrics["bpcer"] <= 0.2
        assert not higher or presented_figures(made, float(higher[0])).metrics["bpcer"] > 0.2


def test_threshold_survives_float32() -> None:
    scores, live, attack = drawn(1)
    t = threshold_at(gather_presentations(scores, live, attack), "apcer=0.1")
    assert float(np.float32(t)) == t


@pytest.mark.parametrize("rule", ["eeer", "apcer", "apcer=x", "apcer=1.5", "bpcer=-1", "tar=0.5", "eer=0.1"])
def test_unknown_threshold_rules(rule: str) -> None:
    with pytest.raises(ValueError, match="a threshold is chosen at"):
        threshold_at(gather_presentations(*drawn(0)), rule)


def test_bpcer_out_of_reach() -> None:
    scores, live = np.array([np.nan, 0.5, 0.1]), np.array([True, True, False])
    with pytest.raises(ValueError, match="1 of 2 live faces have no score"):
        threshold_at(gather_presentations(scores, live), "bpcer=0.1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"live": np.ones(90, dtype=bool)}, "all of them live"),
        ({"live": np.zeros(90, dtype=bool)}, "none of them live"),
        ({"live": np.full(90, 2)}, "only True and False"),
        ({"live": np.ones(3, dtype=bool)}, "one list each"),
        ({"attack": ["none"] * 90}, "attacks are called 'none'"),
        ({"attack": ["print"]}, "attack names 1 rows"),
        ({"clip": np.zeros(90, int)}, "several live and attack"),
        ({"clip": np.zeros(3, int)}, "whole numbers"),
        ({"person": np.zeros(90)}, "whole numbers"),
        ({"scores": np.full(90, np.nan)}, "answers to nothing"),
    ],
)
def test_refusals(change: dict, message: str) -> None:
    scores, live, attack = drawn(0)
    with pytest.raises(ValueError, match=message):
        gather_presentations(**({"scores": scores, "live": live, "attack": attack} | change))


def test_taking_some_leaves_their_species() -> None:
    scores, live, attack = drawn(2)
    person = np.random.default_rng(2).integers(0, 9, 90)
    made = gather_presentations(scores, live, attack, person=person)
    chosen = np.array([one or name == "replay" for one, name in zip(live, attack, strict=True)])
    part: Presentations = made.take(chosen)
    assert part.attacks == ["replay"]
    whole = {group["name"]: group for group in rates_by_species(made, 0.4)}
    for group in rates_by_species(part, 0.4):
        assert group == whole[group["name"]]


@pytest.mark.parametrize("key", KEYS)
def test_directions(key: str) -> None:
    assert metric_direction(f"val/{key}") == (1 if key in ("auc", "acc") else -1)
