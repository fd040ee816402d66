"""A fusion starts as the concatenation, weighs models and images as it says, and pools sets as loops do."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fastface.models.fusion import Fusion, start_map

SIZES = (5, 3, 4)
TOTAL = sum(SIZES)


def rows(number: int = 6, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(number, TOTAL)) * 3)


def parts(row: Tensor) -> list[np.ndarray]:
    ends = np.cumsum(SIZES)
    return [row.numpy()[end - size : end] for size, end in zip(SIZES, ends, strict=True)]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def moved(network: Fusion) -> Fusion:
    """Move every parameter from where it starts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return network.double().eval()


@pytest.mark.parametrize("network", ["skip", "linear"])
def test_it_starts_exactly_as_the_concatenation(network: str) -> None:
    fused = Fusion(SIZES, network=network, embedding_size=None).double()(rows())  # type: ignore[arg-type]
    for a in range(6):
        for b in range(6):
            expected = np.mean([cosine(x, y) for x, y in zip(parts(rows()[a]), parts(rows()[b]), strict=True)])
            assert (fused[a] @ fused[b]).item() == pytest.approx(expected, abs=1e-12)


def test_weighing_embeddings_is_weighing_scores() -> None:
    weights = [0.5, 2.0, 1.5]
    network = Fusion(SIZES, network="linear", embedding_size=None, learn_scales=True).double()
    with torch.no_grad():
        network.scale.copy_(torch.tensor(weights))
    fused = network(rows())
    squares = np.square(weights)
    for a, b in ((0, 1), (2, 5), (3, 4)):
        each = [cosine(x, y) for x, y in zip(parts(rows()[a]), parts(rows()[b]), strict=True)]
        assert (fused[a] @ fused[b]).item() == pytest.approx(float(squares @ each / squares.sum()), abs=1e-12)


def test_the_published_perceptron() -> None:
    network = Fusion((512, 512, 512), hidden=(512, 256))
    assert network.perceptron is not None
    assert [type(layer).__name__ for layer in network.perceptron] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert (
        sum(p.numel() for p in network.perceptron.parameters()) == 1536 * 512 + 512 + 512 * 256 + 256 + 256 * 512 + 512
    )
    out = network(torch.randn(2, 1536))
    assert out.shape == (2, 512)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))
    assert "perceptron 1536 -> 512 -> 256 -> 512" in network.describe()


def test_the_perceptron_sees_unit_embeddings_times_the_root_of_their_size() -> None:
    network = moved(
        Fusion(SIZES, network="skip", embedding_size=7, hidden=(6,), batch_norm=True, start=torch.ones(7, 12))
    )
    assert network.perceptron is not None
    assert network.map is not None
    linear, norm, _, last = (layer for layer in network.perceptron)
    for row, found in zip(rows(), network(rows()), strict=True):
        units = [part / np.linalg.norm(part) for part in parts(row)]
        x = torch.from_numpy(np.concatenate([u * len(u) ** 0.5 for u in units]))
        hidden = linear.weight @ x  # type: ignore[operator]
        hidden = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias  # type: ignore[operator]
        out = last.weight @ hidden.clamp_min(0) + last.bias  # type: ignore[operator]
        out = out + network.map.weight @ torch.from_numpy(np.concatenate(units))
        torch.testing.assert_close(found, out / out.norm())


@pytest.mark.parametrize("quality", ["norm", "gate"])
def test_quality_weights_start_at_one_and_follow_their_rule(quality: str) -> None:
    log_norms = torch.tensor([[1.0, 1.1, 0.9], [0.2, 0.3, 0.4]])
    plain = Fusion(SIZES, network="linear", embedding_size=None).double()
    network = Fusion(SIZES, network="linear", embedding_size=None, quality=quality, log_norms=log_norms).double()  # type: ignore[arg-type]
    torch.testing.assert_close(network(rows()), plain(rows()))
    network = moved(network)
    for row, found in zip(rows(), network.blocks(rows()), strict=True):
        units = [part / np.linalg.norm(part) for part in parts(row)]
        lengths = [
            (np.log(np.linalg.norm(part)) - log_norms[0, m].item()) / log_norms[1, m].item()
            for m, part in enumerate(parts(row))
        ]
        if network.power is not None:
            weights = [np.exp(network.power[m].item() * lengths[m]) for m in range(3)]
        else:
            assert network.gate is not None
            seen = np.concatenate([*(u * len(u) ** 0.5 for u in units), lengths])
            logits = network.gate.weight.detach().numpy() @ seen + network.gate.bias.detach().numpy()
            weights = 2 / (1 + np.exp(-logits))
        expected = np.concatenate([u * w for u, w in zip(units, weights, strict=True)])
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "norm", "attention"])
def test_a_set_is_pooled_as_a_loop_does(pooling: str) -> None:
    network = Fusion(SIZES, network="linear", embedding_size=None, set_size=3, pooling=pooling).double()  # type: ignore[arg-type]
    start = network(rows())
    network = moved(network)
    single, weights = (
        network.fuse(rows()).detach().numpy(),
        network.set_logits(network.fuse(rows()), rows()).detach().numpy(),
    )
    pooled, plain = [], []
    for begin in (0, 3):
        total, simple = np.zeros(TOTAL), np.zeros(TOTAL)
        for n in range(begin, begin + 3):
            total += np.exp(weights[n]) * single[n]
            simple += np.concatenate([part / np.linalg.norm(part) for part in parts(rows()[n])])
        pooled.append(total / np.linalg.norm(total))
        plain.append(simple / np.linalg.norm(simple))
    np.testing.assert_allclose(network(rows()).detach().numpy(), pooled, atol=1e-12)
    np.testing.assert_allclose(start.detach().numpy(), plain, atol=1e-12)  # it starts as the mean
    if pooling == "mean":
        assert not weights.any()


def test_pca_keeps_the_most_of_the_inner_products() -> None:
    data = rows(40).numpy() @ np.diag(np.linspace(0.1, 3, TOTAL))
    moment = torch.from_numpy(data.T @ data / len(data))
    kept = start_map("pca", 4, moment).double().numpy()
    np.testing.assert_allclose(kept @ kept.T, np.eye(4), atol=1e-6)
    left, values, right = np.linalg.svd(data, full_matrices=False)
    best = left[:, :4] @ np.diag(values[:4]) @ right[:4]
    np.testing.assert_allclose((data @ kept.T) @ kept, best, atol=1e-5)
    random = start_map("orthogonal", 4, moment).double().numpy()
    np.testing.assert_allclose(random @ random.T, np.eye(4), atol=1e-6)
    assert torch.equal(start_map("pca", TOTAL, moment), torch.eye(TOTAL))
    with pytest.raises(ValueError, match=r"embedding_size 13 is more than the 12 values"):
        start_map("pca", 13, moment)
