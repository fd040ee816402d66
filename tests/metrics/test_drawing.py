import numpy as np
import pytest

from fastface.metrics.drawing import interval_means, running_mean


@pytest.mark.parametrize(("number", "most"), [(1, 10), (10, 10), (11, 10), (99, 10), (100, 10), (1234, 100)])
def test_intervals_average_like_slow_loops(number: int, most: int) -> None:
    random = np.random.default_rng(number)
    steps, values = np.arange(5, 5 + number), random.normal(size=number)
    values[random.random(number) < 0.2] = np.nan
    values[:1] = np.inf
    got_steps, got = interval_means(steps, values, most)
    size = 1
    while size * most < number:
        size += 1
    expected = []
    for start in range(0, number, size):
        places = range(start, min(start + size, number))
        finite = [float(values[i]) for i in places if np.isfinite(values[i])]
        mean = sum(finite) / len(finite) if finite else float("nan")
        expected.append((sum(float(steps[i]) for i in places) / len(places), mean))
    assert len(got) <= most
    np.testing.assert_allclose(got_steps, [step for step, _ in expected], rtol=1e-12)
    np.testing.assert_allclose(got, [mean for _, mean in expected], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("window", [1, 2, 3, 8, 50])
def test_the_running_mean_is_that_of_the_neighbours(window: int) -> None:
    values = np.random.default_rng(window).normal(size=40)
    values[[3, 4, 5, 20]] = np.nan
    got = running_mean(values, window)
    for i in range(40):
        near = values[max(0, i - (window - 1) // 2) : i + window // 2 + 1]
        near = [float(v) for v in near if np.isfinite(v)]
        expected = sum(near) / len(near) if np.isfinite(values[i]) else np.nan
        np.testing.assert_allclose(got[i], expected, rtol=1e-9, atol=1e-12)
