"""A matcher gives the same to the bit in either order, starts from the cosine, and does what its formula says."""

import math

import pytest
import torch

from fastface.models.matcher import Comparator, Matcher, pairs_of

KINDS = {
    "cosine": {"features": "cosine"},
    "linear": {},
    "perceptron": {"hidden": (7, 3), "dropout": 0.2},
}


def moved(sizes: tuple[int, ...], **options) -> Matcher:
    """Build a matcher with random weights and a mean, in evaluation mode."""
    torch.manual_seed(0)
    matcher = Matcher(sizes, **options, mean=torch.randn(sum(sizes)) / 10)
    for parameter in (matcher.scale, *([] if matcher.head is None else matcher.head.parameters())):
        torch.nn.init.normal_(parameter)
    return matcher.eval()


def slow(matcher: Matcher, first: list[float], second: list[float]) -> float:
    """The formula, number by number."""
    mean = matcher.mean.tolist()
    total, begin = matcher.bias.item(), 0
    differences, products = [], []
    for size, scale in zip(matcher.sizes, matcher.scale.tolist(), strict=True):
        sides = []
        for row in (first, second):
            centred = [row[n] - mean[n] for n in range(begin, begin + size)]
            length = math.sqrt(sum(x * x for x in centred))
            sides.append([x / length for x in centred])
        total += scale * sum(x * y for x, y in zip(*sides, strict=True))
        differences += [abs(x - y) * math.sqrt(size) for x, y in zip(*sides, strict=True)]
        products += [x * y * size for x, y in zip(*sides, strict=True)]
        begin += size
    if matcher.head is None:
        return total
    values = differences + products
    linear = [layer for layer in matcher.head if isinstance(layer, torch.nn.Linear)]
    for layer in linear:
        biases = [0.0] * layer.out_features if layer is linear[-1] else layer.bias.tolist()
        values = [
            sum(w * v for w, v in zip(row, values, strict=True)) + b
            for row, b in zip(layer.weight.tolist(), biases, strict=True)
        ]
        if layer is not linear[-1]:
            values = [max(v, 0.0) for v in values]
    return total + values[0]


@pytest.mark.parametrize("sizes", [(6,), (6, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_formula(kind: str, sizes: tuple[int, ...]) -> None:
    matcher = moved(sizes, **KINDS[kind]).double()
    first, second = torch.randn(2, 5, sum(sizes), dtype=torch.float64)
    expected = [slow(matcher, a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    torch.testing.assert_close(matcher.compare(first, second), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_changes_no_bit(kind: str) -> None:
    compare = Comparator(moved((16, 8), **KINDS[kind]))
    first, second = torch.randn(2, 100, 24)
    assert torch.equal(compare(first, second), compare(second, first))
    assert compare(first, second).std() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_training_starts_from_the_cosine(kind: str) -> None:
    matcher = Matcher((6,), **KINDS[kind], scale=10.0, bias=-3.0)
    first, second = torch.randn(2, 5, 6)
    cosine = torch.nn.functional.cosine_similarity(first, second)
    torch.testing.assert_close(matcher.compare(first, second), 10 * cosine - 3)


def test_lengths_do_not_matter() -> None:
    matcher = Matcher((6,))
    first, second = torch.randn(2, 5, 6)
    torch.testing.assert_close(matcher.compare(first * 7, second / 3), matcher.compare(first, second))


def test_the_pairs_of_a_batch() -> None:
    first, second = pairs_of(6, "neighbours", torch.device("cpu"))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 1), (2, 3), (4, 5)]
    first, second = pairs_of(4, "all", torch.device("cpu"))
    expected = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected
    rows = torch.randn(4, 6)
    for pairs, number in (("neighbours", 2), ("all", 6)):
        assert Matcher((6,), pairs=pairs)(rows).shape == (number,)


def test_it_describes_itself() -> None:
    assert "perceptron on elements, embeddings of 6 + 4 -> 20 -> 7 -> 3 -> 1" in moved((6, 4), hidden=(7, 3)).describe()
    assert "logistic regression on cosine, embeddings of 6, 2 parameters" in Matcher((6,), features="cosine").describe()


def test_hidden_layers_need_something_to_combine() -> None:
    with pytest.raises(ValueError, match=r"task\.hidden is for task\.features elements"):
        Matcher((6,), features="cosine", hidden=(3,))
