"""Names and positions on a palette -> colours, three numbers in [0, 1]."""

Colour = tuple[float, float, float]

SKIN = (
    (0.97, 0.86, 0.78), (0.94, 0.79, 0.68), (0.87, 0.68, 0.54), (0.77, 0.56, 0.41), (0.62, 0.42, 0.29),
    (0.44, 0.29, 0.20), (0.29, 0.19, 0.14),
)  # fmt: skip
HAIR = {
    "black": (0.07, 0.06, 0.06), "brown": (0.22, 0.14, 0.09), "chestnut": (0.36, 0.22, 0.13),
    "blond": (0.76, 0.61, 0.38), "red": (0.55, 0.24, 0.10), "grey": (0.62, 0.61, 0.60),
    "dyed": (0.45, 0.12, 0.30),
}  # fmt: skip
IRIS = {
    "brown": (0.26, 0.15, 0.08), "hazel": (0.42, 0.33, 0.15), "green": (0.32, 0.45, 0.28),
    "blue": (0.30, 0.46, 0.66), "grey": (0.45, 0.50, 0.54),
}  # fmt: skip


def along(palette: tuple[Colour, ...], position: float) -> Colour:
    """Interpolate between the colours of `palette`, position 0 being the first and 1 the last."""
    place = min(max(position, 0.0), 1.0) * (len(palette) - 1)
    left = min(int(place), len(palette) - 2)
    return mix(palette[left], palette[left + 1], place - left)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Blend two colours; share 0 gives a, 1 gives b."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def tint(colour: Colour, red: float, green: float, blue: float) -> Colour:
    """Scale each channel and keep it in [0, 1]."""
    return (min(colour[0] * red, 1.0), min(colour[1] * green, 1.0), min(colour[2] * blue, 1.0))
