"""Attempts to be accepted by a system, drawn from normal distributions."""

import numpy as np

from fastface.metrics.full_system import Attempts, gather_attempts


def drawn(seed: int, num: int = 120, *, failures: int = 0, persons: int | None = None) -> Attempts:
    """Draw a third of each kind, attacks of two species; match scores with ties, liveness in 0..1."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["genuine", "impostor", "attack"], num)
    attack = rng.choice(["print", "mask"], num, p=[0.7, 0.3])
    match = np.round(rng.normal(np.select([kind == "genuine", kind == "attack"], [3.0, 2.5], 0.0)), 1)
    evidence = rng.normal(np.where(kind == "attack", np.where(attack == "mask", -0.5, -3.0), 2.0))
    live = (1 / (1 + np.exp(-evidence))).astype(np.float32)
    match[rng.choice(num, failures, replace=False)] = np.nan
    live[rng.choice(num, failures, replace=False)] = np.nan
    seen = None
    if persons is not None:
        enrolled = rng.integers(0, persons, num)
        other = (enrolled + rng.integers(1, persons, num)) % persons
        seen = np.stack([np.where(kind == "impostor", other, enrolled), enrolled])
    return gather_attempts(match, live, kind.tolist(), attack.tolist(), seen)
