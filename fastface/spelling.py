"""A name nobody knows -> the known name that was probably meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ", perhaps you meant 'x'" for the nearest spelling among `names`, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f", perhaps you meant {close[0]!r}" if close else ""
