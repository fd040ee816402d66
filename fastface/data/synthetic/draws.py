"""(seed, identity, image, stream) -> random numbers, the same on any process and in any order."""

import functools

import numpy as np

# One stream per use, so that drawing more of one thing never shifts another.
ANATOMY, SHOT, BACKGROUND, OCCLUDER, SENSOR, DEVICE, PRESENTATION, PHONE, RECAPTURE, MOTION, SHAKE = range(11)


def generator(seed: int, identity: int, image: int, stream: int) -> np.random.Generator:
    """Make the counter-based generator of one use; `image` is -1 for what belongs to the identity.

    Philox4x64 takes a 128-bit key and a 256-bit counter (Salmon et al., SC 2011): the key carries who and
    what, the highest counter word the stream, so no two uses overlap.
    """
    if not (0 <= seed < 2**64 and 0 <= identity < 2**32 and -1 <= image < 2**32 - 1):
        raise ValueError(
            f"seed {seed}, identity {identity}, image {image}: seed must lie in [0, 2**64), "
            f"identity and image in [0, 2**32 - 1)"
        )
    key = np.array([seed, (identity << 32) | (image + 1)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64)))


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw one float in [low, high)."""
    return low + (high - low) * float(rng.random())


def normal(rng: np.random.Generator, mean: float, spread: float, limit: float = 2.5) -> float:
    """Draw one float around `mean`, clipped at `limit` spreads."""
    return mean + spread * max(-limit, min(limit, float(rng.standard_normal())))


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Draw one yes or no."""
    return float(rng.random()) < probability


def choose(rng: np.random.Generator, table: dict[str, float]) -> str:
    """Draw one key of `table` in proportion to its weight."""
    point = float(rng.random()) * sum(table.values())
    for name, weight in table.items():
        point -= weight
        if point < 0:
            return name
    return next(reversed(table))


@functools.lru_cache(maxsize=4)
def texture(kind: str) -> np.ndarray:
    """Return a tiling noise texture in [-1, 1], float32 [256, 256], the same in every process.

    `cloud` is smooth, `strands` runs from top to bottom, `grain` is fine.
    """
    spread_y, spread_x = {"cloud": (6.0, 6.0), "strands": (14.0, 1.6), "grain": (1.6, 1.6)}[kind]
    white = generator(0, 0, 0, 1000 + ord(kind[0])).standard_normal((256, 256))
    fy, fx = np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None, :]
    gauss = np.exp(-2 * np.pi**2 * ((fy * spread_y) ** 2 + (fx * spread_x) ** 2))
    noise = np.fft.irfft2(np.fft.rfft2(white) * gauss, s=(256, 256))
    noise = noise / (2 * noise.std())
    return np.clip(noise, -1, 1).astype(np.float32)
