import math

import numpy as np
import pytest

from fastface.metrics.full_system import (
    Attempts,
    Limits,
    accept_both,
    best_and,
    detailed_rates,
    gather_attempts,
    rates_of,
    strictest_needed,
)
from fastface.metrics.intervals import wilson
from tests.metrics.attempts import drawn


def slow(attempts: Attempts, accepted: list[bool]) -> tuple[float, float, float]:
    """Return FRR, FAR and IAPAR by loops."""
    by: dict[str, list[bool]] = {name: [] for name in attempts.kinds}
    for number, got in zip(attempts.kind.tolist(), accepted, strict=True):
        by[attempts.kinds[number]].append(got)
    share = {name: sum(got) / len(got) for name, got in by.items()}
    attacks = [value for name, value in share.items() if name not in ("genuine", "impostor")]
    return 1 - share["genuine"], share["impostor"], max(attacks)


def decide(attempts: Attempts, match: float, live: float) -> list[bool]:
    both = zip(attempts.match.tolist(), attempts.live.tolist(), strict=True)
    return [a >= match and b >= live and math.isfinite(a) and math.isfinite(b) for a, b in both]


def test_by_hand() -> None:
    """Two genuine, of which one looks like a print; two impostors; two prints, of which one passes for live."""
    attempts = gather_attempts(
        np.array([0.9, 0.8, 0.7, 0.1, 0.9, 0.8]),
        np.array([0.9, 0.3, 0.9, 0.9, 0.6, 0.1]),
        ["genuine", "genuine", "impostor", "impostor", "attack", "attack"],
    )
    rates = rates_of(attempts, accept_both(attempts, 0.5, 0.5))
    assert rates == (0.5, 0.5, 0.5)
    assert rates.riapar == 1.0
    without = rates_of(attempts, accept_both(attempts, 0.5, -math.inf))
    assert (without.frr, without.iapar, without.riapar) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize("failures", [0, 9])
@pytest.mark.parametrize("seed", range(3))
def test_rates_are_those_of_the_loops(seed: int, failures: int) -> None:
    attempts = drawn(seed, failures=failures)
    for match, live in ((1.5, 0.5), (-9.0, 0.2), (9.0, 0.0), (-math.inf, -math.inf)):
        accepted = accept_both(attempts, match, live)
        assert accepted.tolist() == decide(attempts, match, live)
        assert tuple(rates_of(attempts, accepted)) == pytest.approx(slow(attempts, accepted.tolist()))


@pytest.mark.parametrize("limits", [Limits(0.1, 0.2), Limits(0.0, 0.0), Limits(0.02, 1.0), Limits(1.0, 0.05)])
@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_of_one_score_is_the_lowest_that_keeps_the_limits(seed: int, limits: Limits) -> None:
    attempts = drawn(seed, failures=5)
    needed = strictest_needed(attempts, attempts.match, limits)
    known = np.unique(attempts.match[np.isfinite(attempts.match)]).tolist()

    def kept(threshold: float) -> bool:
        _, far, iapar = slow(attempts, [score >= threshold for score in attempts.match.tolist()])
        return far <= limits.far and iapar <= limits.iapar

    assert kept(needed)
    lower = [score for score in known if score < needed]
    assert not lower or not kept(lower[-1])


@pytest.mark.parametrize("limits", [Limits(0.1, 0.1), Limits(0.03, 0.3), Limits(0.0, 0.0)])
@pytest.mark.parametrize("seed", range(3))
def test_both_thresholds_are_the_best_of_all(seed: int, limits: Limits) -> None:
    attempts = drawn(seed, num=40, failures=3)
    found = best_and(attempts, limits)
    assert found.rates.far <= limits.far
    assert found.rates.iapar <= limits.iapar
    frrs = [1.0]
    for match in [-9.0, *attempts.match.tolist()]:
        for live in [-9.0, *attempts.live.tolist()]:
            frr, far, iapar = slow(attempts, decide(attempts, match, live))
            frrs += [frr] if far <= limits.far and iapar <= limits.iapar else []
            # just above, where the score itself has to be refused
            frr, far, iapar = slow(attempts, decide(attempts, match, math.nextafter(live, math.inf)))
            frrs += [frr] if far <= limits.far and iapar <= limits.iapar else []
    assert found.rates.frr == pytest.approx(min(frrs))


def test_details_count_and_widen_for_persons() -> None:
    attempts = drawn(4, num=600, persons=8)
    accepted = accept_both(attempts, 1.5, 0.5)
    alone = detailed_rates(attempts._replace(persons=None), accepted)
    for found, plain in zip(detailed_rates(attempts, accepted), alone, strict=True):
        chosen = attempts.kind == attempts.kinds.index(found["name"])
        assert found["attempts"] == int(chosen.sum())
        assert found["errors"] == int((accepted[chosen] == (found["name"] != "genuine")).sum())
        assert plain["interval"] == list(wilson(found["errors"], found["attempts"]))
        assert found["rate"] == plain["rate"]
        assert found["interval_method"] != plain["interval_method"]
    assert [found["rate_name"] for found in alone] == ["FRR", "FAR", "IAPAR", "IAPAR"]


@pytest.mark.parametrize(
    ("kind", "attack", "message"),
    [
        (["genuine", "impostor", "atack"], None, "perhaps you meant 'attack'"),
        (["genuine", "impostor", "impostor"], None, "no attack attempt"),
        (["genuine", "impostor"], None, "equal length"),
        (["genuine", "impostor", "attack"], ["", "", "genuine"], "is called 'genuine'"),
    ],
)
def test_refusals(kind: list[str], attack: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gather_attempts(np.zeros(3), np.zeros(3), kind, attack)
