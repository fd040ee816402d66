import math

import pytest

from fastface.metrics.intervals import independent, wilson


def test_wilson_agrees_with_its_definition() -> None:
    """Its ends are the rates from which the observed one is 1.96 standard errors away."""
    low, high = wilson(45, 50)
    for end in (low, high):
        assert abs(0.9 - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / 50), rel=1e-6)
    assert wilson(0, 50)[0] == 0.0
    assert wilson(50, 50)[1] == 1.0
    assert 0 < wilson(0, 50)[1] < 0.1


def test_an_interval_says_how_it_was_found() -> None:
    assert independent(45, 50)[:2] == wilson(45, 50)
    assert "independent" in independent(45, 50).method
    with pytest.raises(ValueError, match="not 3 of 2"):
        wilson(3, 2)
