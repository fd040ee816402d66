"""Seeds -> embeddings of drawn people by several models whose errors are partly the same.

Person i is a vector z_i of `code` values, an image j of him a noise that all models see and one that is each model's
own. Model m embeds

    A_m (sqrt(k) z_i + sqrt(1 - k) z_im  +  s_m q_ij (sqrt(r) d * n_ij + sqrt(1 - r) d_m * n_ijm))

where z, n are standard normal, k is the share of the identities' variance and r that of the noise's variance that all
models have in common, s_m the noise of the model, q_ij that of the image (log-normal, mean square 1), d and d_m its
unlike directions (the same, fixed), and A_m orthonormal columns of the model's own, so that the values of two models
have nothing to do with each other, as in reality. Lengths are multiplied by log-normal numbers that tell nothing.

The best that concatenation can do follows from k and r: what is common is not averaged away. What is learnable beyond
it is that directions are unlike, and which model errs more.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.embeddings import Embeddings
from fastface.data.names import Names

GROUPS = ("train", "val", "test")
LENGTH, LENGTH_SPREAD = 20.0, 0.1
"""Of embeddings, as face networks give them."""


def draw_embeddings(
    group: str,
    *,
    identities: int,
    samples: int,
    sizes: Sequence[int],
    code: int,
    noise: Sequence[float],
    correlation: float,
    identity_correlation: float,
    spread: float,
    quality: float,
    seed: int,
) -> tuple[Embeddings, ...]:
    """Draw the embeddings of all images of a group of people by each model; groups share no person.

    The first people and images stay the same where more are drawn.
    """
    number = GROUPS.index(group)
    profiles = [_profile(seed, model, code, spread) for model in range(len(sizes) + 1)]
    maps = [_map(seed, model, size, code) for model, size in enumerate(sizes)]
    rows = [np.empty((identities * samples, size), np.float32) for size in sizes]
    for person in range(identities):
        rng = _normal(seed, number, person, 0)
        common, own = rng.standard_normal(code), rng.standard_normal((len(sizes), code))
        shared, apart = np.empty((samples, code)), np.empty((samples, len(sizes), code))
        strength, length = np.empty(samples), np.empty((samples, len(sizes)))
        for image in range(samples):
            rng = _normal(seed, number, person, image + 1)
            shared[image], apart[image] = rng.standard_normal(code), rng.standard_normal((len(sizes), code))
            strength[image] = np.exp(quality * rng.standard_normal() - quality * quality)
            length[image] = LENGTH * np.exp(LENGTH_SPREAD * rng.standard_normal(len(sizes)))
        place = slice(person * samples, (person + 1) * samples)
        for model, scale in enumerate(noise):
            who = np.sqrt(identity_correlation) * common + np.sqrt(1 - identity_correlation) * own[model]
            error = np.sqrt(correlation) * profiles[-1] * shared
            error = error + np.sqrt(1 - correlation) * profiles[model] * apart[:, model]
            seen = (who + scale * strength[:, None] * error) @ maps[model].T
            seen *= length[:, model, None] / np.linalg.norm(seen, axis=1, keepdims=True)
            rows[model][place] = seen
    labels = np.repeat(np.arange(identities, dtype=np.int32), samples)
    classes = Names(f"{group} {person:05d}" for person in range(identities))
    names = Names(f"{group}/{person:05d}/{image:03d}" for person in range(identities) for image in range(samples))
    about = {
        "identities": identities, "samples": samples, "sizes": list(sizes), "code": code, "noise": list(noise),
        "correlation": correlation, "identity_correlation": identity_correlation, "spread": spread,
        "quality": quality, "seed": seed, "group": group,
    }  # fmt: skip
    return tuple(
        Embeddings(_place(group, model), values, labels, names, classes, _meta(about, model))
        for model, values in enumerate(rows)
    )


def _normal(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _profile(seed: int, model: int, code: int, spread: float) -> np.ndarray:
    """Return how large a noise is in each direction, float64 [code], mean square 1; `model` past the last: common."""
    profile = np.exp(spread * _normal(seed, len(GROUPS), model).standard_normal(code))
    return profile / np.sqrt(np.square(profile).mean())


def _map(seed: int, model: int, size: int, code: int) -> np.ndarray:
    """Return orthonormal columns, float64 [size, code]."""
    return np.linalg.qr(_normal(seed, len(GROUPS) + 1, model).standard_normal((size, code)))[0]


def _place(group: str, model: int) -> Path:
    return Path(f"synthetic/{group}/{model + 1}")


def _meta(about: dict[str, Any], model: int) -> dict[str, Any]:
    text = json.dumps({"synthetic": about}, sort_keys=True)
    dataset_id = hashlib.sha256(text.encode()).hexdigest()
    digest = hashlib.sha256(f"{text} {model}".encode()).hexdigest()
    return {"dataset_id": dataset_id, "model": {"sha256": digest, "synthetic": model + 1}, "synthetic": about}
